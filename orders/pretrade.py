"""Prices an intent and runs every pre-trade risk check on it. Nothing is committed or sent here.

The one exception to the rule that reads do not ask the broker (spec §0.2): just before an order, AEGIS asks it for the
quote, for the order book if the price is taken from it, and for orderable cash or shares.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from django.conf import settings

from aegis import pricing, sessions
from aegis.broker import Book, Broker, BrokerError, OrderRequest, OutcomeUnknown, Quote, Refused
from aegis.chase import Plan
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.execution_quality import book_sweep_price
from aegis.pricing import NoQuote, Strategy
from aegis.risk import RISK_CHECKS, RiskCheck, RiskInputs, check_order_kind_fields, denials
from aegis.sessions import KST, Phase
from aegis.terms import Instrument, Market, OrderKind, Side
from market import queries, reference_data
from market.codes import canonical
from market.models import Stock
from orders import pretrade_context, reconcile, risk
from orders.intents import NO_CHASE, OrderDenied, OrderIntent, default_plan, offsets
from orders.pretrade_context import PreTradeContext, PreTradeQuery
from portfolio.fetcher import KISFetcher


@dataclass(frozen=True, slots=True)
class PricedOrder:
    """An order ready to be committed: its request, and the inputs of its pricing and its risk checks.

    `cost_won` is what the broker reserves for it. `changed` says why its kind differs from the intent's, if it does.
    `quoted_at` is a time before the quote was requested: the age of the quote counts from then. `tick_offset`, in
    ticks, and `band_percent` are what it was priced with. `arrival_sweep_price` is the average price, in won, of a
    market order by the order book at arrival.
    """

    request: OrderRequest
    stock: Stock
    quote: Quote
    quoted_at: datetime
    strategy: str
    plan: Plan
    cost_won: int
    inputs: RiskInputs
    changed: Denial | None = None
    arrival_sweep_price: Decimal | None = None
    tick_offset: int | None = None
    band_percent: Decimal = Decimal(0)
    strategy_id: str = ""


@dataclass(frozen=True, slots=True)
class Priced:
    """A request with its price, and the order book if it was fetched."""

    request: OrderRequest
    book: Book | None


def reserved_won(request: OrderRequest, quote: Quote) -> int:
    """Return the won that the broker reserves for an order: an order without a price counts at the upper limit."""
    return request.qty * (request.price if request.kind.is_priced else quote.upper_limit)


def plan_for(intent: OrderIntent, request: OrderRequest) -> Plan:
    """Return how an order is chased: by the intent's own plan, otherwise by the settings if its price may change.

    A market order, an order with a price and an order of a named kind are not chased.
    """
    if intent.plan is not None:
        return intent.plan
    has_named_kind = intent.kind not in (None, OrderKind.MARKET)
    is_fixed = intent.price is not None or has_named_kind or request.kind.is_market
    return NO_CHASE if is_fixed else default_plan()


def unpriced(intent: OrderIntent, stock: Stock, context: PreTradeContext) -> tuple[OrderRequest, tuple[Phase, ...]]:
    """Return the request of an intent before it has a price, and the phases of its venue at the context's time."""
    venue = intent.market or sessions.get_available_market(context.phases, context.now) or Market.KRX
    if intent.market is None and venue is Market.NXT and not stock.trades_on_nxt:
        venue = Market.KRX
    open_phases = sessions.phases_at(context.phases, venue, context.now)
    kind = sessions.kind_for(intent.kind, sessions.kinds_of(open_phases), names_price=intent.names_price)
    request = OrderRequest(intent.code, intent.side, venue, kind, intent.qty, intent.price or 0, trigger=intent.trigger)
    return request, open_phases


def risk_inputs(
    request: OrderRequest,
    stock: Stock,
    context: PreTradeContext,
    *,
    open_phases: tuple[Phase, ...] | None = None,
    is_priced: bool = True,
    is_child_order: bool = False,
) -> RiskInputs:
    """Return the risk inputs of an order that do not need a call to the broker."""
    if open_phases is None:
        open_phases = sessions.phases_at(context.phases, request.market, context.now)
    return RiskInputs(
        request=request,
        now=context.now.astimezone(KST),
        state=context.competing.state,
        breaker_since=context.competing.breaker_since,
        open_phases=open_phases,
        instrument=Instrument(stock.instrument),
        trades_on_nxt=stock.trades_on_nxt,
        is_priced=is_priced,
        is_child_order=is_child_order,
        sector=stock.sector,
        blacklisted=context.blacklisted,
        limits=context.limits,
        others=context.competing.others,
        held_qty=context.competing.held_qty,
        total_asset=context.total_asset,
    )


def require(inputs: RiskInputs, checks: tuple[RiskCheck, ...]) -> None:
    """Run checks on an order. Raises OrderDenied with every denial."""
    if reasons := denials(inputs, checks):
        raise OrderDenied(reasons)


def why_kind_changed(intent: OrderIntent, request: OrderRequest) -> Denial | None:
    """Return why a market order is sent as a limit order, None if its kind is unchanged."""
    if not intent.is_at_market or request.kind.is_market:
        return None
    template = gettext_noop(
        "{market} takes no market order now: it goes as a limit at {price:,} won, the best opposite quote"
    )
    return Denial(DenialCode.KIND_CHANGED, template, {"market": request.market, "price": request.price})


def _distinct(reasons: Sequence[Denial]) -> list[Denial]:
    """Return one denial of each code; of several with the same code, the last."""
    return list({reason.code: reason for reason in reasons}.values())


class PreTrade:
    """Prices and checks orders with one broker and one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    # --- our own tables

    def canonical_context(self, intent: OrderIntent) -> tuple[OrderIntent, PreTradeContext]:
        """Return a new order's intent with the canonical stock code, and its context."""
        context = self.context(intent)
        if context.stock is None and (code := canonical(intent.code)) != intent.code:
            intent = replace(intent, code=code)
            context = self.context(intent)
        return intent, context

    def context(self, intent: OrderIntent, family: int | None = None) -> PreTradeContext:
        """Return everything that the checks need from our tables. `family` is the root of the order's family."""
        query = PreTradeQuery(
            intent.code, intent.side, intent.qty, intent.price or 0, intent.strategy, intent.request_id, family
        )
        return pretrade_context.load_context(query, limits=risk.limits(), now=self._now())

    def ensure_reconciled(
        self, context: PreTradeContext, intent: OrderIntent, family: int | None = None
    ) -> PreTradeContext:
        """Reconcile first if the last reconciliation is stale.

        Raises NotSent if the broker is not reached, and OrderDenied if it refuses or does not answer.
        """
        if context.competing.reconciled:
            return context
        self._reconcile()
        return self.context(intent, family)

    def ensure_current(self, context: PreTradeContext, intent: OrderIntent) -> PreTradeContext:
        """Reconcile a new order's context if it is stale, or if orders of the opposite side seem open.

        One of those may have filled without a notice. Raises as `ensure_reconciled`.
        """
        return self.with_fresh_opposites(self.ensure_reconciled(context, intent), intent)

    def with_fresh_opposites(self, context: PreTradeContext, intent: OrderIntent) -> PreTradeContext:
        """Reconcile if orders of the opposite side seem open; without an answer of the broker, they count as open."""
        if not context.competing.others.opposite:
            return context
        with suppress(BrokerError):
            reconcile.reconcile_now(self._broker, self._now)
        return self.context(intent)

    def _reconcile(self) -> None:
        try:
            reconcile.reconcile(self._broker, self._now)
        except (Refused, OutcomeUnknown) as error:
            template = gettext_noop(
                "the broker's list of orders could not be read, and nothing goes before that: {error}"
            )
            raise OrderDenied([Denial(DenialCode.NOT_RECONCILED, template, {"error": error})]) from error

    def stock_of(self, code: str) -> Stock:
        return queries.get_stock(code) or self.new_stock(code)

    def new_stock(self, code: str) -> Stock:
        """Ask the broker for a stock that the master lacks. Raises OrderDenied if there is none, and BrokerError."""
        try:
            return reference_data.sync_stock(self._broker, code, now=self._now())
        except Refused as error:
            template = gettext_noop("there is no stock with the code {code}")
            raise OrderDenied([Denial(DenialCode.UNKNOWN_STOCK, template, {"code": code})]) from error

    # --- a new order

    def draft(self, intent: OrderIntent, context: PreTradeContext) -> PricedOrder:
        """Price and check a new order. Raises OrderDenied with every denial, or a BrokerError."""
        stock = context.stock or self.new_stock(intent.code)
        request, open_phases = unpriced(intent, stock, context)
        is_priced = intent.price is not None
        inputs = risk_inputs(request, stock, context, open_phases=open_phases, is_priced=is_priced)
        early_denials = denials(inputs)
        if intent.kind and (field_denial := check_order_kind_fields(intent.kind, names_price=intent.names_price)):
            raise OrderDenied([field_denial, *early_denials])
        try:
            quote = self._broker.quote(intent.code, request.market)
            strategy = self.strategy_of(intent)
            priced = self.price(request, intent, stock, quote, strategy)
            draft = self.run_checks(priced, stock, quote, context.now, intent, inputs)
        except OrderDenied as error:
            raise OrderDenied(_distinct([*early_denials, *error.reasons])) from error
        except BrokerError as error:
            if early_denials:
                raise OrderDenied(early_denials) from error
            raise
        return replace(
            draft,
            arrival_sweep_price=book_sweep_price(priced.book, intent.side, intent.qty) if priced.book else None,
            tick_offset=strategy.offset if strategy and intent.names_price else None,
            strategy_id=intent.strategy_id,
        )

    def strategy_of(self, intent: OrderIntent) -> Strategy | None:
        """Return the pricing style of an intent, with the intent's own offset if it has one.

        None for an intent with a price, or at market. Raises OrderDenied if its side has no such style.
        """
        if not intent.strategy:
            if intent.tick_offset is None:
                return None
            return Strategy("offset", intent.side, pricing.Anchor.LAST, intent.tick_offset)
        styles = {
            name: candidate
            for name, candidate in pricing.strategies(offsets()).items()
            if candidate.side is intent.side
        }
        if intent.strategy not in styles:
            template = gettext_noop("strategy {name} is unknown for this side: use one of {known}")
            params = {"name": intent.strategy, "known": ", ".join(styles)}
            raise OrderDenied([Denial(DenialCode.STRATEGY, template, params)])
        style = styles[intent.strategy]
        return style if intent.tick_offset is None else replace(style, offset=intent.tick_offset)

    # --- pricing

    def price(
        self,
        request: OrderRequest,
        intent: OrderIntent,
        stock: Stock,
        quote: Quote,
        strategy: Strategy | None,
        *,
        ticks_closer: int = 0,
        band_percent: Decimal | None = None,
    ) -> Priced:
        """Return the order with its price; the order book is fetched only if the price is taken from it."""
        if intent.price is not None or not request.kind.is_priced:
            return Priced(request, None)
        if strategy is None:
            # a market order that the venue does not accept: no price is closer than the best opposite quote
            strategy, ticks_closer = pricing.at_market(intent.side), 0
        book = self._broker.book(intent.code, request.market) if strategy.anchor is pricing.Anchor.OPPOSITE else None
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
            template = gettext_noop("{code} has no quote on the other side of the book")
            raise OrderDenied([Denial(DenialCode.NO_QUOTE, template, {"code": quote.code})]) from error

    def as_best_opposite_limit(
        self, request: OrderRequest, quote: Quote, stock: Stock, kind: OrderKind
    ) -> OrderRequest:
        """Return an order as a limit at the best opposite quote. Raises OrderDenied without one, and BrokerError."""
        book = self._broker.book(request.code, request.market)
        price = self.limit_price(pricing.at_market(request.side), quote, book, stock)
        return replace(request, kind=kind, price=price)

    # --- risk checks

    def run_checks(
        self,
        priced: Priced,
        stock: Stock,
        quote: Quote,
        quoted_at: datetime,
        intent: OrderIntent,
        inputs: RiskInputs,
        *,
        released_won: int = 0,
        released_qty: int = 0,
        cost_won: int | None = None,
        checks: tuple[RiskCheck, ...] = RISK_CHECKS,
    ) -> PricedOrder:
        """Run every check on a priced order; `inputs` are its risk inputs from before pricing.

        `released_won` and `released_qty` are what the resting order that this one follows still reserves at the broker.
        `cost_won` is the cash that the order needs, if that is not its whole value. An amend that only lowers risk
        passes fewer `checks`; the broker is then not asked for cash or shares. Raises OrderDenied and BrokerError.
        """
        request = priced.request
        cost = reserved_won(request, quote) if cost_won is None else cost_won
        inputs = replace(
            inputs,
            request=request,
            is_priced=True,
            quote=quote,
            cost_won=cost,
            best_opposite=self._best_opposite(priced, inputs),
        )
        plan, changed = plan_for(intent, request), why_kind_changed(intent, request)
        try:
            if checks is RISK_CHECKS:
                counts_shares = cost_won is None and not released_won
                inputs = self._with_broker_limits(inputs, released_won, released_qty, counts_shares=counts_shares)
        except BrokerError as error:
            if reasons := denials(inputs, checks):
                raise OrderDenied(reasons) from error
            raise
        require(inputs, checks)
        return PricedOrder(
            request,
            stock,
            quote,
            quoted_at,
            intent.strategy,
            plan,
            cost,
            inputs,
            changed,
            band_percent=settings.MAX_OFFSET_PERCENT,
        )

    def _best_opposite(self, priced: Priced, inputs: RiskInputs) -> int | None:
        """Return the best opposite quote if an order without a price could trade against one of the same account."""
        request = priced.request
        if request.kind.is_priced or not inputs.others.opposite:
            return None
        book = priced.book or self._broker.book(request.code, request.market)
        return book.best_opposite(request.side)

    def _with_broker_limits(
        self, inputs: RiskInputs, released_won: int, released_qty: int, *, counts_shares: bool
    ) -> RiskInputs:
        """Ask the broker for orderable cash or sellable shares, and add what the resting order releases.

        Also syncs the balance if the concentration limit needs it and no snapshot exists. With `counts_shares`, the
        broker's own count of affordable shares applies too; it ignores what a resting order reserves.
        """
        request = inputs.request
        if request.side is Side.SELL:
            return replace(inputs, sellable_qty=self._broker.sellable_qty(request.code) + released_qty)
        orderable = self._broker.orderable(request.code, request.kind, request.price)
        qty = orderable.qty if counts_shares else None
        updated = replace(inputs, orderable_cash=orderable.cash + released_won, orderable_qty=qty)
        if inputs.limits.position_percent and inputs.total_asset is None:
            KISFetcher(self._broker, self._now).sync_portfolio()
            updated = replace(updated, **risk.position(request.code))
        return updated
