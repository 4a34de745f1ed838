from datetime import date, time
from decimal import Decimal

import pytest

from kis import catalogue
from kis.rest_values import BadField, Row, order_number

ROW = Row(
    {
        "stck_prpr": "65850",
        "pchs_avg_pric": "248750.0000",
        "excg_id_dvsn_Cd": "NXT  ",
        "empty": "",
        "ord_dt": "20260105",
    },
    "inquire-price",
)


def test_values_become_numbers_dates_and_text_without_padding() -> None:
    assert ROW.integer("stck_prpr") == 65_850
    assert ROW.integer("pchs_avg_pric") == 248_750
    assert ROW.decimal("pchs_avg_pric") == Decimal("248750.0000")
    assert ROW.day("ord_dt") == date(2026, 1, 5)
    assert Row({"t": "093025"}, "").clock("t") == time(9, 30, 25)


def test_keys_are_read_without_regard_to_case() -> None:
    assert ROW.text("EXCG_ID_DVSN_CD") == "NXT"


def test_an_empty_number_is_zero_as_the_broker_means_it() -> None:
    assert ROW.integer("empty") == 0


def test_a_missing_field_names_the_operation_and_the_field() -> None:
    with pytest.raises(BadField, match="inquire-price the reply has no field stck_mxpr"):
        ROW.integer("stck_mxpr")


def test_a_field_that_may_be_missing_has_a_default() -> None:
    assert ROW.optional("vi_cls_code") == ""


@pytest.mark.parametrize("text", ["(null)", "12,000", "abc"])
def test_a_number_that_is_none_is_named_with_its_value(text: str) -> None:
    with pytest.raises(BadField, match="not a number"):
        Row({"qty": text}, "inquire-balance").integer("qty")


@pytest.mark.parametrize("text", ["25:00:00", "", "99999", "246060", "０９３０２５"])
def test_a_time_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(BadField, match="a time as"):
        Row({"ord_tmd": text}, "orders").clock("ord_tmd")


@pytest.mark.parametrize("text", ["0000006555", "6555", "      6555"])
def test_an_order_number_is_the_same_however_it_is_padded(text: str) -> None:
    assert order_number(text) == "0000006555"


@pytest.mark.parametrize("text", ["", "  ", "-", "abc", "0.5", None])
def test_a_figure_that_nothing_depends_on_has_a_default(text: str | None) -> None:
    values = {} if text is None else {"aspr_unit": text}
    assert Row(values, "inquire-price").integer_or("aspr_unit", 7) == 7
    assert Row({"aspr_unit": "100"}, "inquire-price").integer_or("aspr_unit", 7) == 100


def test_a_field_that_the_schema_lacks_and_a_value_of_another_type_are_our_own_mistakes() -> None:
    values = {"stck_prpr": "70000", "brand_new": "1"}
    row = Row(values, "inquire-price", catalogue.PRICE.outputs["output"])
    assert row.integer("STCK_PRPR") == 70_000
    with pytest.raises(LookupError, match="inquire-price has no field brand_new"):
        row.text("brand_new")
    with pytest.raises(TypeError, match="stck_prpr counts won"):
        row.day("stck_prpr")
