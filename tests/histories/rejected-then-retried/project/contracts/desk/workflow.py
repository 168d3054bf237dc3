
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])

    given, tries = "one", 0
    outcome = await run.propose("risk.check", {"order": given})
    while not outcome.completed and outcome.attempts_left:
        tries += 1
        given = 1
        outcome = await run.propose("risk.check", {"order": given})
    return {"risk": outcome.result, "tries": tries, "left": run.attempts}
