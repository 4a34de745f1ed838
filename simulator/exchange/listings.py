"""The listed shares of the simulated market: real names and codes, plausible but invented figures.

Base prices are those of the world's first day; after that the base is the last close.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType

from aegis.terms import Board, Instrument


@dataclass(frozen=True, slots=True)
class ListedStock:
    """One line of the master file (종목 마스터). Prices in won."""

    code: str
    name: str
    english: str
    board: Board
    instrument: Instrument
    sector: str  # 업종 (bstp_kor_isnm)
    industry: str  # 표준산업분류 (std_idst_clsf_cd_name)
    base_price: int
    listed_shares: int
    par_value: int
    on_nxt: bool
    in_kospi200: bool
    takes_market: bool  # False: the stock refuses market orders at any time (시장가호가불가)

    @property
    def full_name(self) -> str:
        """The full name of the security, as the master file prints it."""
        return self.name if self.instrument is not Instrument.STOCK else f"{self.name}보통주"

    @property
    def listed_on(self) -> date:
        """The listing date (상장일); there are no earlier prices."""
        return date(1996, 12, 26) if self.instrument is Instrument.STOCK else date(2000, 12, 11)

    @property
    def market_label(self) -> str:
        """The market label that inquire-price prints (대표 시장)."""
        if self.instrument is not Instrument.STOCK:
            return str(self.instrument)
        if self.board is Board.KOSDAQ:
            return "KOSDAQ"
        return "KOSPI200" if self.in_kospi200 else "KOSPI"


_KOSPI, _KOSDAQ = Board.KOSPI, Board.KOSDAQ
_SHARE, _ETF = Instrument.STOCK, Instrument.ETF


def _row(
    code: str,
    name: str,
    english: str,
    sector: str,
    industry: str,
    base_price: int,
    listed_shares: int,
    par_value: int,
    flags: str = "",
    board: Board = _KOSPI,
    instrument: Instrument = _SHARE,
) -> ListedStock:
    """Return a row. Flags: `n` traded on NXT, `2` member of KOSPI200, `x` refuses market orders."""
    return ListedStock(
        code=code,
        name=name,
        english=english,
        board=board,
        instrument=instrument,
        sector=sector,
        industry=industry,
        base_price=base_price,
        listed_shares=listed_shares,
        par_value=par_value,
        on_nxt="n" in flags,
        in_kospi200="2" in flags,
        takes_market="x" not in flags,
    )


def _kosdaq(
    code: str, name: str, english: str, sector: str, industry: str, base: int, shares: int, par: int, flags: str = ""
) -> ListedStock:
    return _row(code, name, english, sector, industry, base, shares, par, flags, board=_KOSDAQ)


def _fund(code: str, name: str, english: str, base: int, units: int) -> ListedStock:
    # exchange-traded funds are not traded on NXT
    return _row(code, name, english, "", "", base, units, 0, instrument=_ETF)


_ROWS = (
    _row(
        "005930", "삼성전자", "SamsungElec", "전기·전자", "통신 및 방송 장비 제조업", 71_500, 5_919_637_922, 100, "n2"
    ),
    _row("000660", "SK하이닉스", "SK hynix", "전기·전자", "반도체 제조업", 268_500, 728_002_365, 5_000, "n2"),
    _row(
        "373220",
        "LG에너지솔루션",
        "LG Energy Solution",
        "전기·전자",
        "일차전지 및 축전지 제조업",
        368_000,
        234_000_000,
        500,
        "n2",
    ),
    _row(
        "207940",
        "삼성바이오로직스",
        "SAMSUNG BIOLOGICS",
        "제약",
        "기초 의약물질 제조업",
        1_078_000,
        71_174_000,
        2_500,
        "n2",
    ),
    _row(
        "012450",
        "한화에어로스페이스",
        "Hanwha Aerospace",
        "운송장비·부품",
        "항공기 제조업",
        943_000,
        51_563_401,
        5_000,
        "n2",
    ),
    _row("105560", "KB금융", "KB Financial Group", "기타금융", "기타 금융업", 117_200, 381_462_103, 5_000, "n2"),
    _row(
        "005380",
        "현대차",
        "HyundaiMtr",
        "운송장비·부품",
        "자동차용 엔진 및 자동차 제조업",
        217_500,
        204_757_766,
        5_000,
        "n2",
    ),
    _row("000270", "기아", "Kia", "운송장비·부품", "자동차용 엔진 및 자동차 제조업", 105_000, 397_672_632, 5_000, "n2"),
    _row("068270", "셀트리온", "Celltrion", "제약", "기초 의약물질 제조업", 178_300, 230_939_000, 1_000, "n2"),
    _row("035420", "NAVER", "NAVER", "IT 서비스", "자료처리 및 포털 서비스업", 232_500, 156_852_638, 100, "n2"),
    _row("035720", "카카오", "Kakao", "IT 서비스", "자료처리 및 포털 서비스업", 58_700, 442_088_455, 100, "n2"),
    _row("015760", "한국전력", "KEPCO", "전기·가스", "전기업", 38_250, 641_964_077, 5_000, "n2"),
    _row("036460", "한국가스공사", "KOGAS", "전기·가스", "가스 제조 및 배관공급업", 43_150, 92_313_000, 5_000, "n2"),
    _row("071320", "지역난방공사", "KDHC", "전기·가스", "증기 공급업", 82_400, 11_578_744, 5_000),
    _row(
        "034020",
        "두산에너빌리티",
        "DOOSAN ENERBILITY",
        "기계·장비",
        "일반 목적용 기계 제조업",
        65_400,
        640_561_146,
        5_000,
        "n2",
    ),
    _row("005490", "POSCO홀딩스", "POSCO Holdings", "금속", "1차 철강 제조업", 318_500, 80_932_952, 5_000, "n2"),
    _row("051910", "LG화학", "LG Chem", "화학", "기초 화학물질 제조업", 298_000, 70_592_343, 5_000, "n2"),
    _row(
        "006400", "삼성SDI", "Samsung SDI", "전기·전자", "일차전지 및 축전지 제조업", 196_400, 80_586_122, 5_000, "n2"
    ),
    _row("066570", "LG전자", "LG Electronics", "전기·전자", "가정용 기기 제조업", 79_800, 163_647_814, 5_000, "n2"),
    _row("003490", "대한항공", "KAL", "운송·창고", "항공 여객 운송업", 24_350, 368_220_661, 5_000, "n2"),
    _row("011200", "HMM", "HMM", "운송·창고", "해상 운송업", 23_100, 1_025_039_496, 5_000, "n2"),
    _row("024110", "기업은행", "IBK", "은행", "은행 및 저축기관", 19_480, 797_425_869, 5_000, "n2"),
    _row("316140", "우리금융지주", "Woori Financial", "기타금융", "기타 금융업", 25_200, 734_076_320, 5_000, "n2"),
    _row("010130", "고려아연", "Korea Zinc", "금속", "1차 비철금속 제조업", 812_000, 20_703_283, 5_000, "n2"),
    _row("028670", "팬오션", "PAN OCEAN", "운송·창고", "해상 운송업", 3_995, 534_569_512, 1_000, "n2"),
    _row("005880", "대한해운", "KoreaLine", "운송·창고", "해상 운송업", 1_996, 322_747_165, 500),
    _row("008970", "KBI동양철관", "KBI DONGYANG STEEL PIPE", "금속", "1차 철강 제조업", 1_413, 163_243_570, 500),
    # invented: this stock takes no market orders
    _row("004410", "서울식품", "Seoul Food", "음식료·담배", "곡물가공품 제조업", 158, 376_234_861, 100, "x"),
    _row("088350", "한화생명", "HANWHA LIFE", "보험", "보험업", 3_260, 868_530_000, 5_000, "n2"),
    _row("009150", "삼성전기", "SEMCO", "전기·전자", "전자부품 제조업", 147_300, 74_693_696, 5_000, "n2"),
    _row("004090", "한국석유", "Korea Petroleum", "비금속", "석유 정제품 제조업", 15_980, 12_652_980, 500),
    _kosdaq("247540", "에코프로비엠", "ECOPRO BM", "전기·전자", "기타 전기장비 제조업", 118_900, 97_801_344, 500, "n"),
    _kosdaq("086520", "에코프로", "ECOPRO", "금융", "회사 본부 및 경영 컨설팅 서비스업", 49_950, 135_766_390, 100, "n"),
    _kosdaq(
        "196170", "알테오젠", "ALTEOGEN", "일반서비스", "자연과학 및 공학 연구개발업", 486_500, 53_468_350, 500, "n"
    ),
    _kosdaq("028300", "HLB", "HLB", "운송장비·부품", "선박 및 보트 건조업", 48_550, 131_397_000, 500, "n"),
    _kosdaq(
        "293490", "카카오게임즈", "Kakao Games", "IT 서비스", "소프트웨어 개발 및 공급업", 16_480, 82_853_000, 100, "n"
    ),
    _kosdaq("263750", "펄어비스", "PearlAbyss", "IT 서비스", "소프트웨어 개발 및 공급업", 38_700, 64_247_855, 100, "n"),
    _kosdaq("035900", "JYP Ent.", "JYP Entertainment", "오락·문화", "오디오물 출판 업", 74_300, 35_530_492, 500, "n"),
    _kosdaq("027360", "아주IB투자", "AJU IB INVESTMENT", "금융", "기타 금융업", 2_310, 120_987_500, 500),
    _kosdaq("136480", "하림", "HARIM", "음식료·담배", "도축 육류 가공업", 3_190, 106_204_000, 100),
    _fund("069500", "KODEX 200", "SAMSUNG KODEX 200", 42_815, 155_150_000),
    _fund("114800", "KODEX 인버스", "SAMSUNG KODEX INVERSE", 3_385, 204_900_000),
    _fund("122630", "KODEX 레버리지", "SAMSUNG KODEX LEVERAGE", 27_180, 79_300_000),
    _fund("252670", "KODEX 200선물인버스2X", "SAMSUNG KODEX 200F INVERSE2X", 1_372, 941_300_000),
)

# for load tests: the list is filled up to this number of stocks with invented ones, whose codes begin with 9
VARIABLE = "AEGIS_SIMULATOR_STOCKS"


def _practice_stocks(count: int) -> Iterator[ListedStock]:
    shares = [row for row in _ROWS if row.instrument is Instrument.STOCK]
    for number in range(count):
        template = shares[number % len(shares)]
        row = replace(template, code=f"9{number:04d}0", on_nxt=False, in_kospi200=False, takes_market=True)
        yield replace(row, name=f"연습{number:03d}", english=f"Practice{number:03d}")


_LISTED = (*_ROWS, *_practice_stocks(int(os.environ.get(VARIABLE, "0")) - len(_ROWS)))
STOCKS: Mapping[str, ListedStock] = MappingProxyType({row.code: row for row in _LISTED})
