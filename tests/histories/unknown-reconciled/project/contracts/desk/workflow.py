
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])

    found = await run.call("odd.found", how="done-unseen")
    lost = await run.propose("odd.write", {"how": "done-unseen"})
    return {"found": found, "lost": lost.code, "case": bool(lost.case)}
