
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])

    amount = {"amount": "60.00", "currency": "EUR"}
    paid = await run.call("payments.refund", order=request["order"], amount=amount, account=order["account"])
    return {'paid': paid}
