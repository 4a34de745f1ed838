"""Prices an intent and judges it by every pre-trade risk check. Nothing is committed or sent here.

The one exception to "nobody asks the broker": just before an order it is asked for the quote, the book if the price
is taken from it, and orderable cash or shares (spec §0.2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from django.conf import settings

from aegis import pricing, sessions
from aegis.broker import Book, Broker, BrokerError, OrderRequest, OutcomeUnknown, Quote, Refused
from aegis.chase import Plan
from aegis.denials import Denial, DenialCode
from aegis.execution_quality import book_sweep_price
from aegis.pricing import NoQuote, Strategy
from aegis.risk import RISK_CHECKS, RiskCheck, RiskInputs, check_order_kind_fields, denials, gettext_noop
from aegis.sessions import Phase
from aegis.terms import Instrument, Market, OrderKind, Side
from market import queries, reference_data
from market.models import Stock
from orders import pretrade_context, reconcile, risk
from orders.intents import OrderDenied, OrderIntent, offsets, plan_for
from orders.pretrade_context import PreTradeContext, PreTradeQuery
from portfolio.fetcher import KISFetcher


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """An order ready to be committed: what would be sent, and what it was priced and judged against.

    `changed` says why it goes as another kind than was asked for, if it does. `quoted_at` is when the quote was asked
    for: the order is as old as that. `tick_offset` and `band_percent` are what it was priced with.
    """

    request: OrderRequest
    stock: Stock
    quote: Quote
    quoted_at: datetime
    strategy: str
    plan: Plan
    cost_won: int
    facts: RiskInputs
    changed: Denial | None = None
    arrival_market: Decimal | None = None
    tick_offset: int | None = None
    band_percent: Decimal = Decimal(0)
    strategy_id: str = ""


@dataclass(frozen=True, slots=True)
class Priced:
    """A request with its price, and the book, if it was asked."""

    request: OrderRequest
    book: Book | None


def reserved_won(request: OrderRequest, quote: Quote) -> int:
    """Return the won that the broker reserves for an order: without a price it reckons with the upper limit."""
    return request.qty * (request.price if request.kind.is_priced else quote.upper_limit)


def why_kind_changed(intent: OrderIntent, request: OrderRequest) -> Denial | None:
    """Return why a market order goes as a limit, None if it goes as it was asked for."""
    if not intent.is_at_market or request.kind.is_market:
        return None
    words = gettext_noop(
        "{market} takes no market order now: it goes as a limit at {price:,} won, the best opposite quote"
    )
    return Denial(DenialCode.KIND_CHANGED, words, {"market": request.market, "price": request.price})


def _distinct(reasons: Sequence[Denial]) -> list[Denial]:
    """Return reasons without those that come twice; the later figures stand."""
    return list({reason.code: reason for reason in reasons}.values())


class PreTrade:
    """Prices and judges orders with one broker, by one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    # --- what our tables say

    def context(self, intent: OrderIntent, family: int | None = None) -> PreTradeContext:
        """Return all that the checks want to know of our own tables; `family` is the root whose order this is."""
        query = PreTradeQuery(
            intent.code, intent.side, intent.qty, intent.price or 0, intent.strategy, intent.request_id, family
        )
        return pretrade_context.load_context(query, now=self._now())

    def ensure_reconciled(
        self, context: PreTradeContext, intent: OrderIntent, family: int | None = None
    ) -> PreTradeContext:
        """Reconcile first if the last reconciliation is stale.

        Raises NotSent if the broker is out of reach, and OrderDenied if it does not answer.
        """
        if context.competing.reconciled:
            return context
        try:
            reconcile.reconcile(self._broker, self._now)
        except (Refused, OutcomeUnknown) as error:
            words = gettext_noop("the broker's list of orders could not be read, and nothing goes before that: {error}")
            raise OrderDenied([Denial(DenialCode.NOT_RECONCILED, words, {"error": error})]) from error
        return self.context(intent, family)

    def stock_of(self, code: str) -> Stock:
        return queries.get_stock(code) or self.new_stock(code)

    def new_stock(self, code: str) -> Stock:
        """Ask for a stock that the master does not know. Raises OrderDenied if there is none, and BrokerError."""
        try:
            return reference_data.sync_stock(self._broker, code, now=self._now())
        except Refused as refusal:
            words = gettext_noop("there is no stock with the code {code}")
            raise OrderDenied([Denial(DenialCode.UNKNOWN_STOCK, words, {"code": code})]) from refusal

    # --- a new order

    def draft(self, intent: OrderIntent, context: PreTradeContext) -> PricedOrder:
        """Price and judge a new order. Raises OrderDenied with every reason against it, or a BrokerError."""
        stock = context.stock or self.new_stock(intent.code)
        venue = self._venue(intent, stock, context.phases)
        facts = self.facts(self._unpriced(intent, venue, context.phases), stock, intent, context)
        standing = denials(facts)
        if intent.kind and (wrong := check_order_kind_fields(intent.kind, names_price=intent.names_price)):
            raise OrderDenied([wrong, *standing])
        quoted_at = self._now()
        try:
            quote = self._broker.quote(intent.code, venue)
            strategy = self.strategy_of(intent)
            priced = self.price(intent, venue, stock, quote, context.phases, strategy)
            draft = self.judge(priced, stock, quote, quoted_at, intent, facts)
        except OrderDenied as denied:
            raise OrderDenied(_distinct([*standing, *denied.reasons])) from denied
        except BrokerError as error:
            if standing:
                raise OrderDenied(standing) from error
            raise
        return replace(
            draft,
            arrival_market=book_sweep_price(priced.book, intent.side, intent.qty) if priced.book else None,
            tick_offset=strategy.offset if strategy and intent.names_price else None,
            strategy_id=intent.strategy_id,
        )

    def _venue(self, intent: OrderIntent, stock: Stock, phases: tuple[Phase, ...]) -> Market:
        if intent.market is not None:
            return intent.market
        available = sessions.get_available_market(phases, self._now())
        if available is Market.NXT and not stock.trades_on_nxt:
            return Market.KRX
        return available or Market.KRX

    def _unpriced(self, intent: OrderIntent, venue: Market, phases: tuple[Phase, ...]) -> OrderRequest:
        legal = sessions.legal_kinds(venue, phases, self._now())
        kind = sessions.kind_for(intent.kind, legal, names_price=intent.names_price)
        return OrderRequest(
            intent.code, intent.side, venue, kind, intent.qty, intent.price or 0, trigger=intent.trigger
        )

    def strategy_of(self, intent: OrderIntent) -> Strategy | None:
        """Return how an intent is priced: its style, with its own offset if it has one; None for a price or market."""
        if not intent.strategy:
            if intent.tick_offset is None:
                return None
            return Strategy("offset", intent.side, pricing.Anchor.LAST, intent.tick_offset)
        known = {name: each for name, each in pricing.strategies(offsets()).items() if each.side is intent.side}
        if intent.strategy not in known:
            words = gettext_noop("strategy {name} is unknown for this side: use one of {known}")
            figures = {"name": intent.strategy, "known": ", ".join(known)}
            raise OrderDenied([Denial(DenialCode.STRATEGY, words, figures)])
        style = known[intent.strategy]
        return style if intent.tick_offset is None else replace(style, offset=intent.tick_offset)

    # --- pricing

    def price(
        self,
        intent: OrderIntent,
        venue: Market,
        stock: Stock,
        quote: Quote,
        phases: tuple[Phase, ...],
        strategy: Strategy | None,
        *,
        ticks_closer: int = 0,
        band_percent: Decimal | None = None,
    ) -> Priced:
        """Return the order with its price; the book is asked only if the price is taken from it."""
        request = self._unpriced(intent, venue, phases)
        if intent.price is not None or not request.kind.is_priced:
            return Priced(request, None)
        if strategy is None:
            # a market order that the venue does not take: nothing is nearer than the best opposite quote
            strategy, ticks_closer = pricing.at_market(intent.side), 0
        book = self._broker.book(intent.code, venue) if strategy.anchor is pricing.Anchor.OPPOSITE else None
        price = self.limit_price(strategy, quote, book, stock, ticks_closer, band_percent)
        return Priced(replace(request, price=price), book)

    def limit_price(
        self,
        strategy: Strategy,
        quote: Quote,
        book: Book | None,
        stock: Stock,
        ticks_closer: int = 0,
        band_percent: Decimal | None = None,
    ) -> int:
        percent = settings.MAX_OFFSET_PERCENT if band_percent is None else band_percent
        instrument = Instrument(stock.instrument)
        try:
            return pricing.limit_price(
                strategy, quote, book, instrument, ticks_closer=ticks_closer, max_percent=percent
            )
        except NoQuote as error:
            words = gettext_noop("{code} has no quote on the other side of the book")
            raise OrderDenied([Denial(DenialCode.NO_QUOTE, words, {"code": quote.code})]) from error

    def at_best_opposite(self, request: OrderRequest, quote: Quote, stock: Stock, kind: OrderKind) -> OrderRequest:
        """Return an order as a limit at the best opposite quote. Raises OrderDenied without one, and BrokerError."""
        book = self._broker.book(request.code, request.market)
        price = self.limit_price(pricing.at_market(request.side), quote, book, stock)
        return replace(request, kind=kind, price=price)

    # --- judging

    def judge(
        self,
        priced: Priced,
        stock: Stock,
        quote: Quote,
        quoted_at: datetime,
        intent: OrderIntent,
        facts: RiskInputs,
        *,
        released_won: int = 0,
        released_qty: int = 0,
        cost_won: int | None = None,
        checks: tuple[RiskCheck, ...] = RISK_CHECKS,
    ) -> PricedOrder:
        """Judge a priced order by every check; `facts` are those of before. Raises OrderDenied, BrokerError.

        `released_won` and `released_qty` are what a resting order of the family, that this one is to follow, still
        holds at the broker. `cost_won` is what the order needs, if that is not its whole value. `checks` are fewer for
        an amend that only lowers risk; the broker is then not asked for cash or shares.
        """
        request = priced.request
        cost = reserved_won(request, quote) if cost_won is None else cost_won
        facts = replace(
            facts,
            request=request,
            is_priced=True,
            quote=quote,
            cost_won=cost,
            best_opposite=self._best_opposite(priced, facts),
        )
        try:
            if checks is RISK_CHECKS:
                counts = cost_won is None and not released_won
                facts = self._ask_limits(facts, released_won, released_qty, counts_shares=counts)
        except BrokerError as error:
            if against := denials(facts, checks):
                raise OrderDenied(against) from error
            raise
        if against := denials(facts, checks):
            raise OrderDenied(against)
        return PricedOrder(
            request,
            stock,
            quote,
            quoted_at,
            intent.strategy,
            plan_for(intent, request),
            cost,
            facts,
            why_kind_changed(intent, request),
            band_percent=settings.MAX_OFFSET_PERCENT,
        )

    def _best_opposite(self, priced: Priced, facts: RiskInputs) -> int | None:
        """Return the best opposite quote if an order without a price could meet an order of the same account."""
        request = priced.request
        if request.kind.is_priced or not facts.others.opposite:
            return None
        book = priced.book or self._broker.book(request.code, request.market)
        return book.best_opposite(request.side)

    def facts(
        self,
        request: OrderRequest,
        stock: Stock,
        intent: OrderIntent,
        context: PreTradeContext,
        *,
        is_child_order: bool = False,
    ) -> RiskInputs:
        is_priced = intent.price is not None
        return pretrade_context.risk_inputs(
            request, stock, context, now=self._now(), is_child_order=is_child_order, is_priced=is_priced
        )

    def _ask_limits(
        self, facts: RiskInputs, released_won: int, released_qty: int, *, counts_shares: bool
    ) -> RiskInputs:
        """Ask the broker for cash or shares; and for the account, if it was never seen and is to be weighed.

        The broker's own count of the shares that the cash buys leaves out what the resting order holds.
        """
        request = facts.request
        if request.side is Side.SELL:
            return replace(facts, sellable_qty=self._broker.sellable_qty(request.code) + released_qty)
        orderable = self._broker.orderable(request.code, request.kind, request.price)
        qty = orderable.qty if counts_shares else None
        live = replace(facts, orderable_cash=orderable.cash + released_won, orderable_qty=qty)
        if facts.limits.position_percent and facts.total_asset is None:
            KISFetcher(self._broker, self._now).sync_portfolio()
            live = replace(live, **risk.position(request.code))
        return live
