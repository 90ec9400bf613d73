"""The flow of a session turns round: charge, discharge, charge, over two directions of payment."""

from __future__ import annotations

from penstock.core.effects import Rows
from penstock.core.errors import BadMessage
from penstock.core.messages import Reason, Way
from penstock.core.rail import Ends, Evidence
from penstock.core.session import Role
from penstock.core.units import Amount

from .both_ways import Books, Both


class CoinPayer:
    by_meter = False
    def __init__(self, books, name, other, tick):
        self.books,self.name,self.other,self.tick=books,name,other,tick
        self.paid=Amount(int(books.get(b"paid",b"0")))
    @property
    def ticks(self): return self.paid//self.tick
    @property
    def capacity(self): return Amount(200_000+int(self.books.get(b"earned",b"0")) if self.name=="c" else 100_000+int(self.books.get(b"earned",b"0")))
    def open(self): return Evidence(b"0")
    def pay(self, upto):
        n=(min(upto,self.capacity)-self.paid)//self.tick
        if n<=0: return []
        self.paid=Amount(self.paid+n*self.tick)
        return [Evidence(str(self.paid).encode(),((b"paid",str(self.paid).encode()),))]
    def metered(self,*a): return ()
    def fold(self): return []
    def square(self,bill):
        self.paid=Amount(bill)
        return Evidence(str(bill).encode(),((b"paid",str(bill).encode()),))
    def resume(self,state):
        v=int(state)
        if v>self.paid: raise BadMessage("never paid")
        return [Evidence(str(self.paid).encode())] if v<self.paid else []

class CoinPayee:
    def __init__(self,books,tick): 
        self.books=books; self.tick=tick; self.secured=Amount(int(books.get(b"earned",b"0")))
    @property
    def ticks(self): return self.secured//self.tick
    @property
    def capacity(self): return Amount(10**9)
    def metered(self,*a): return None
    def take(self,evidence,least=None):
        v=int(evidence)
        if least is None and v<self.secured: raise BadMessage("less")
        if least is not None and v!=least: raise BadMessage("not the bill")
        if v==self.secured: return ()
        self.secured=Amount(v)
        return ((b"earned",evidence),)
    def state(self): return str(self.secured).encode()

class Coins:
    def __init__(self, tick=1000, back=800): self.t=(tick,back)
    def terms(self): return b""
    def ends(self, role, books):
        t=self.t if role is Role.CONSUMER else self.t[::-1]
        return Ends(CoinPayer(books,"c" if role is Role.CONSUMER else "s",None,t[0]),CoinPayee(books,t[1]))


def ended_exactly(both: Both) -> None:
    assert both.over, [(s.session.state, s.errors, s.session.fault) for s in both.sides]
    pole, car = both.supplier.row, both.consumer.row
    receipt = pole.receipt
    assert receipt == car.receipt
    assert receipt is not None
    account = both.supplier.session.account
    net = account.net(receipt.supplier_total, receipt.supplier_export)
    assert receipt.paid - receipt.repaid == net
    assert both.supplier.secured() == receipt.paid
    assert both.consumer.secured() == receipt.repaid
    assert receipt.unpaid == 0
    assert pole.supplier_signature and car.supplier_signature


def test_a_flow_that_turns_twice_is_paid_to_the_unit() -> None:
    both = Both(Coins())
    both.trickle(100)
    both.direct(both.consumer, Way.FEED)
    both.wait(1_000, most=0)
    both.trickle(60)
    both.direct(both.consumer, Way.SUPPLY)
    both.wait(1_000, most=0)
    both.trickle(51)
    assert both.supplier.flowed == both.consumer.flowed == (151, 60)
    both.run(both.consumer, both.consumer.session.stop(Reason.OPERATOR, both.now))
    both.wait(5_000)
    ended_exactly(both)
    assert both.worst[Role.SUPPLIER] > 0 < both.worst[Role.CONSUMER]
    print(both.worst, both.supplier.row.receipt)
