
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])

    await run.escalate(f"{request['mail']} wants order {request['order']} back", draft={"account": order["account"]})
