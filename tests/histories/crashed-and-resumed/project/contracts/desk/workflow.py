
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])

    async def checked(number):
        at = await run.now()
        return at, await run.call("risk.check", order=number)
    both = await run.gather(checked(1), run.call("put.keyed", value=7), checked(2))
    last = await run.call("put.safe_found", value=8)
    return {"both": [list(each) if isinstance(each, tuple) else each for each in both], "last": last}
