
async def desk(run, request):
    order = await run.call("orders.read", order=request["order"])

    at, name, chance = await run.now(), await run.uuid(), await run.random()
    risk = await run.call("risk.check", order=request["order"])
    amount = {"amount": "5.00", "currency": "EUR"}
    paid = await run.call("payments.refund", order=request["order"], amount=amount, account=order["account"])
    return {"at": at, "name": name, "chance": chance, "risk": risk, "paid": paid, "told": request["mail"]}
