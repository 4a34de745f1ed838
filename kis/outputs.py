"""What stands in every REST output: the broker's name, ours, and what the value counts. Facts only.

From the broker's own samples and workbook (2026-06) and recorded replies. A `#` stands for a level's number, one to
ten. A reply may hold more fields than these: what is known is read, the rest is left alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from kis.columns import Column, Unit

LEVELS = 10


@dataclass(frozen=True, slots=True)
class Block:
    """One output of a reply: one object, or a list of them. Columns by the broker's name in small letters."""

    is_list: bool
    columns: Mapping[str, Column]


Outputs = Mapping[str, Block]

# who trades (투자자), and what each sold, bought and has net; their quantities have no unit in the broker's documents
_INVESTORS = """
frgn foreign
frgn_reg registered_foreign
frgn_nreg unregistered_foreign
prsn individual
orgn institution
scrt securities
ivtr trusts
pe_fund private_funds
bank banks
insu insurers
mrbn merchant_banks
fund pensions
etc others
etc_orgt other_groups
etc_corp other_companies
"""
_SUMS = """
seln_vol sold_qty unstated
shnu_vol bought_qty unstated
ntby_qty net_qty unstated
ntby_vol net_qty unstated
seln_tr_pbmn sold_won mwon
shnu_tr_pbmn bought_won mwon
ntby_tr_pbmn net_won mwon
"""
_FIELDS = """
KRX_FWDG_ORD_ORGNO branch text
ODNO order_no text
ORD_TMD ordered_at hhmmss
ord_psbl_cash orderable_cash won
ord_psbl_sbst orderable_substitutes won
ruse_psbl_amt reusable won
fund_rpch_chgs fund_redemption won
psbl_qty_calc_unpr reckoned_price won
nrcvb_buy_amt buyable_won won
nrcvb_buy_qty buyable_qty shares
max_buy_amt most_buyable_won won
max_buy_qty most_buyable_qty shares
cma_evlu_amt cma_value won
ovrs_re_use_amt_wcrc overseas_reusable won
ord_psbl_frcr_amt_wcrc orderable_foreign_cash won
pdno code text
prdt_name name text
buy_qty bought_qty shares
sll_qty sold_qty shares
cblc_qty qty shares
nsvg_qty unsaved_qty shares
ord_psbl_qty sellable_qty shares
pchs_avg_pric average_price won_exact
pchs_amt cost won
now_pric price won
evlu_amt value won
evlu_pfls_amt profit won
evlu_pfls_rt profit_pct pct
trad_dvsn_name lot_kind text
bfdy_buy_qty bought_yesterday_qty shares
bfdy_sll_qty sold_yesterday_qty shares
thdt_buyqty bought_today_qty shares
thdt_sll_qty sold_today_qty shares
hldg_qty qty shares
prpr price won
evlu_erng_rt value_gain_pct pct
loan_dt loan_date yyyymmdd
loan_amt loan won
stln_slng_chgs short_sale_proceeds won
expd_dt expires_date yyyymmdd
fltt_rt change_pct pct
bfdy_cprs_icdc change won
item_mgna_rt_name margin_rate_name text
grta_rt_name deposit_rate_name text
sbst_pric substitute_price won
stck_loan_unpr loan_price won_exact
dnca_tot_amt deposit won
nxdy_excc_amt deposit_d1 won
prvs_rcdl_excc_amt deposit_d2 won
bfdy_buy_amt bought_yesterday_won won
thdt_buy_amt bought_today_won won
nxdy_auto_rdpt_amt repaid_tomorrow won
bfdy_sll_amt sold_yesterday_won won
thdt_sll_amt sold_today_won won
d2_auto_rdpt_amt repaid_d2 won
bfdy_tlex_amt costs_yesterday won
thdt_tlex_amt costs_today won
tot_loan_amt loans won
scts_evlu_amt securities_value won
tot_evlu_amt total_asset won
nass_amt net_asset won
fncg_gld_auto_rdpt_yn repays_loans flag
pchs_amt_smtl_amt total_cost won
evlu_amt_smtl_amt total_value won
evlu_pfls_smtl_amt total_profit won
tot_stln_slng_chgs total_short_sale_proceeds won
bfdy_tot_asst_evlu_amt total_asset_yesterday won
asst_icdc_amt asset_change won
asst_icdc_erng_rt asset_change_pct pct
crdt_lnd_amt credit_loan won
real_nass_amt real_net_asset won
whol_weit_rt weight_pct pct
pchs_amt_smtl total_cost won
nass_tot_amt net_asset won
loan_amt_smtl loans won
evlu_pfls_amt_smtl total_profit won
evlu_amt_smtl total_value won
tot_asst_amt total_asset won
tot_lnda_tot_ulst_lnda total_loans won
cma_auto_loan_amt cma_auto_loan won
tot_mgln_amt secured_loans won
stln_evlu_amt short_value won
crdt_fncg_amt credit_financing won
ocl_apl_loan_amt applied_loan won
pldg_stup_amt pledged won
frcr_evlu_tota foreign_cash_value won
tot_dncl_amt total_deposit won
dncl_amt deposit won
tot_sbst_amt substitutes won
thdt_rcvb_amt receivable_today won
ovrs_stck_evlu_amt1 overseas_stock_value won_exact
ovrs_bond_evlu_amt overseas_bond_value won_exact
mmf_cma_mgge_loan_amt mmf_cma_loan won
sbsc_dncl_amt subscription_deposit won
pbst_sbsc_fnds_loan_use_amt subscription_loan won
etpr_crdt_grnt_loan_amt company_credit_loan won
ord_gno_brno branch text
odno order_no text
orgn_odno original_no text
ord_dvsn_name kind_name text
rvse_cncl_dvsn_name change_name text
ord_qty order_qty shares
ord_unpr order_price won
ord_tmd ordered_at hhmmss
tot_ccld_qty filled_qty shares
tot_ccld_amt filled_won won
psbl_qty changeable_qty shares
sll_buy_dvsn_cd side text
ord_dvsn_cd kind text
mgco_aptm_odno manager_order_no text
excg_dvsn_cd exchange_code text
excg_id_dvsn_cd market text
excg_id_dvsn_name market_name text
stpm_cndt_pric trigger_price won
stpm_efct_occr_yn is_triggered flag
ord_dt order_date yyyymmdd
sll_buy_dvsn_cd_name side_name text
avg_prvs average_price won_exact
cncl_yn is_cancelled flag
ordr_empno employee_no text
cncl_cfrm_qty cancelled_qty shares
rmn_qty open_qty shares
rjct_qty rejected_qty shares
ccld_cndt_name condition_name text
inqr_ip_addr ip_address text
cpbc_ordp_ord_rcit_dvsn_cd intake_code text
cpbc_ordp_infm_mthd_dvsn_cd notice_code text
infm_tmd noticed_at hhmmss
ctac_tlno phone text
prdt_type_cd product_type text
cpbc_ordp_mtrl_dvsn_cd material_code text
ord_orgno order_branch text
rsvn_ord_end_dt reserved_until yyyymmdd
excg_id_dvsn_Cd market text
stpm_efct_occr_dtmd triggered_at text
tot_ord_qty total_order_qty shares
prsm_tlex_smtl estimated_costs won
iscd_stat_cls_code state_code text
marg_rate margin_pct pct
rprs_mrkt_kor_name market_name text
new_hgpr_lwpr_cls_code new_extreme text
bstp_kor_isnm sector text
temp_stop_yn is_halted flag
oprc_rang_cont_yn opening_extended flag
clpr_rang_cont_yn closing_extended flag
crdt_able_yn takes_credit flag
grmn_rate_cls_code deposit_rate_code text
elw_pblc_yn has_elw flag
stck_prpr price won
prdy_vrss change won
prdy_vrss_sign change_sign text
prdy_ctrt change_pct pct
acml_tr_pbmn value won
acml_vol volume shares
prdy_vrss_vol_rate volume_change_pct pct
stck_oprc open won
stck_hgpr high won
stck_lwpr low won
stck_mxpr upper_limit won
stck_llam lower_limit won
stck_sdpr base_price won
wghn_avrg_stck_prc average_price won_exact
hts_frgn_ehrt foreign_used_pct pct
pgtr_ntby_qty program_net_qty shares
pvt_scnd_dmrs_prc pivot_second_resistance won
pvt_frst_dmrs_prc pivot_first_resistance won
pvt_pont_val pivot won
pvt_frst_dmsp_prc pivot_first_support won
pvt_scnd_dmsp_prc pivot_second_support won
dmrs_val resistance won
dmsp_val support won
cpfn capital 100mwon
rstc_wdth_prc limit_width won
stck_fcam face_value won_exact
stck_sspr substitute_price won
aspr_unit tick won
hts_deal_qty_unit_val lot shares
lstn_stcn listed_shares shares
hts_avls market_cap 100mwon
per per unstated
pbr pbr unstated
stac_month settles_month text
vol_tnrt turnover_pct pct
eps eps won_exact
bps bps won_exact
d250_hgpr high_250d won
d250_hgpr_date high_250d_date yyyymmdd
d250_hgpr_vrss_prpr_rate from_high_250d_pct pct
d250_lwpr low_250d won
d250_lwpr_date low_250d_date yyyymmdd
d250_lwpr_vrss_prpr_rate from_low_250d_pct pct
stck_dryy_hgpr high_of_year won
dryy_hgpr_vrss_prpr_rate from_high_of_year_pct pct
dryy_hgpr_date high_of_year_date yyyymmdd
stck_dryy_lwpr low_of_year won
dryy_lwpr_vrss_prpr_rate from_low_of_year_pct pct
dryy_lwpr_date low_of_year_date yyyymmdd
w52_hgpr high_52w won
w52_hgpr_vrss_prpr_ctrt from_high_52w_pct pct
w52_hgpr_date high_52w_date yyyymmdd
w52_lwpr low_52w won
w52_lwpr_vrss_prpr_ctrt from_low_52w_pct pct
w52_lwpr_date low_52w_date yyyymmdd
whol_loan_rmnd_rate loan_balance_pct pct
ssts_yn takes_short_sales flag
stck_shrn_iscd code text
fcam_cnnm face_currency text
cpfn_cnnm capital_unit text
apprch_rate approach_pct pct
frgn_hldn_qty foreign_held_qty shares
vi_cls_code in_vi flag
ovtm_vi_cls_code in_after_hours_vi flag
last_ssts_cntg_qty last_short_qty shares
invt_caful_yn needs_care flag
mrkt_warn_cls_code warning_code text
short_over_yn is_overheated flag
sltr_yn is_being_delisted flag
mang_issu_cls_code is_administered flag
aspr_acpt_hour quoted_at hhmmss
askp# ask_price_# won
bidp# bid_price_# won
askp_rsqn# ask_qty_# shares
bidp_rsqn# bid_qty_# shares
askp_rsqn_icdc# ask_qty_change_# shares
bidp_rsqn_icdc# bid_qty_change_# shares
total_askp_rsqn total_ask_qty shares
total_bidp_rsqn total_bid_qty shares
total_askp_rsqn_icdc total_ask_qty_change shares
total_bidp_rsqn_icdc total_bid_qty_change shares
ovtm_total_askp_icdc after_hours_ask_qty_change shares
ovtm_total_bidp_icdc after_hours_bid_qty_change shares
ovtm_total_askp_rsqn after_hours_ask_qty shares
ovtm_total_bidp_rsqn after_hours_bid_qty shares
ntby_aspr_rsqn net_waiting_qty shares
new_mkop_cls_code phase_code text
antc_mkop_cls_code expected_phase_code text
antc_cnpr expected_price won
antc_cntg_vrss_sign expected_change_sign text
antc_cntg_vrss expected_change won
antc_cntg_prdy_ctrt expected_change_pct pct
antc_vol expected_volume shares
stck_bsop_date day yyyymmdd
stck_clpr close won
flng_cls_code off_code text
acml_prtt_rate split_ratio_so_far unstated
stck_prdy_clpr close_yesterday won
hts_kor_isnm name text
prdy_vol volume_yesterday shares
stck_prdy_oprc open_yesterday won
stck_prdy_hgpr high_yesterday won
stck_prdy_lwpr low_yesterday won
askp ask won
bidp bid won
prdy_vrss_vol volume_change shares
itewhol_loan_rmnd_ratem loan_balance_pct pct
prtt_rate split_ratio unstated
mod_yn is_changed flag
revl_issu_reas revaluation_code text
stck_cntg_hour hhmmss hhmmss
cntg_vol qty shares
bass_dt day yyyymmdd
wday_dvsn_cd weekday text
bzdy_yn is_business_day flag
tr_day_yn is_trading_day flag
opnd_yn is_open flag
sttl_day_yn is_settlement_day flag
mket_id_cd board text
scty_grp_id_cd security_group text
setl_mmdd settles_mmdd text
lstg_stqt listed_shares shares
lstg_cptl_amt listed_capital won
cpta capital won
papr face_value won_exact
issu_pric issue_price won_exact
kospi200_item_yn in_kospi200 flag
scts_mket_lstg_dt kospi_listed_date yyyymmdd
scts_mket_lstg_abol_dt kospi_delisted_date yyyymmdd
kosdaq_mket_lstg_dt kosdaq_listed_date yyyymmdd
kosdaq_mket_lstg_abol_dt kosdaq_delisted_date yyyymmdd
frbd_mket_lstg_dt free_board_listed_date yyyymmdd
frbd_mket_lstg_abol_dt free_board_delisted_date yyyymmdd
reits_kind_cd reit_kind text
etf_dvsn_cd etf_class text
oilf_fund_yn is_oil_fund flag
idx_bztp_lcls_cd sector_large_code text
idx_bztp_mcls_cd sector_middle_code text
idx_bztp_scls_cd sector_small_code text
stck_kind_cd stock_kind text
mfnd_opng_dt fund_begins_date yyyymmdd
mfnd_end_dt fund_ends_date yyyymmdd
dpsi_erlm_cncl_dt deposit_ended_date yyyymmdd
etf_cu_qty etf_creation_unit shares
prdt_name120 long_name text
prdt_abrv_name short_name text
std_pdno isin text
prdt_eng_name english_name text
prdt_eng_name120 english_long_name text
prdt_eng_abrv_name english_short_name text
dpsi_aptm_erlm_yn is_deposited flag
etf_txtn_type_cd etf_tax_type text
etf_type_cd etf_type text
lstg_abol_dt delisted_date yyyymmdd
nwst_odst_dvsn_cd new_or_old text
thco_sbst_pric house_substitute_price won
thco_sbst_pric_chng_dt house_substitute_changed_date yyyymmdd
tr_stop_yn is_halted flag
admn_item_yn is_administered flag
thdt_clpr close won
bfdy_clpr close_yesterday won
clpr_chng_dt close_changed_date yyyymmdd
std_idst_clsf_cd industry_code text
std_idst_clsf_cd_name industry text
idx_bztp_lcls_cd_name sector_large text
idx_bztp_mcls_cd_name sector_middle text
idx_bztp_scls_cd_name sector_small text
ocr_no ocr_no text
crfd_item_yn is_crowd_funded flag
elec_scty_yn is_electronic flag
issu_istt_cd issuer text
etf_chas_erng_rt_dbnb etf_multiple unstated
etf_etn_ivst_heed_item_yn needs_care flag
stln_int_rt_dvsn_cd short_interest_code text
frnr_psnl_lmt_rt foreigner_limit_pct pct
lstg_rqsr_issu_istt_cd applicant_issuer text
lstg_rqsr_item_cd applicant_code text
trst_istt_issu_istt_cd trustee text
cptt_trad_tr_psbl_yn trades_on_nxt flag
nxt_tr_stop_yn is_halted_on_nxt flag
shtn_pdno short_code text
prdt_sale_stat_cd sale_state text
prdt_risk_grad_cd risk_grade text
prdt_clsf_cd class_code text
prdt_clsf_name class_name text
sale_strt_dt sale_begins_date yyyymmdd
sale_end_dt sale_ends_date yyyymmdd
wrap_asst_type_cd wrap_asset_type text
ivst_prdt_type_cd investment_type text
ivst_prdt_type_cd_name investment_type_name text
frst_erlm_dt registered_date yyyymmdd
mksc_shrn_iscd code text
bsop_date day yyyymmdd
cntg_vi_hour began_at hhmmss
vi_cncl_hour ended_at hhmmss
vi_kind_code kind text
vi_prc price won
vi_stnd_prc static_standard won
vi_dprt static_gap_pct pct
vi_dmc_stnd_prc dynamic_standard won
vi_dmc_dprt dynamic_gap_pct pct
vi_count count count
bstp_nmix_prpr points points
bstp_nmix_prdy_vrss change points
bstp_nmix_prdy_ctrt change_pct pct
prdy_tr_pbmn value_yesterday mwon
bstp_nmix_oprc open points
prdy_nmix_vrss_nmix_oprc open_change points
oprc_vrss_prpr_sign from_open_sign text
bstp_nmix_oprc_prdy_ctrt open_change_pct pct
bstp_nmix_hgpr high points
prdy_nmix_vrss_nmix_hgpr high_change points
hgpr_vrss_prpr_sign from_high_sign text
bstp_nmix_hgpr_prdy_ctrt high_change_pct pct
bstp_nmix_lwpr low points
prdy_clpr_vrss_lwpr low_change points
lwpr_vrss_prpr_sign from_low_sign text
prdy_clpr_vrss_lwpr_rate low_change_pct pct
ascn_issu_cnt risen count
uplm_issu_cnt at_upper_limit count
stnr_issu_cnt unchanged count
down_issu_cnt fallen count
lslm_issu_cnt at_lower_limit count
dryy_bstp_nmix_hgpr high_of_year points
dryy_bstp_nmix_hgpr_date high_of_year_date yyyymmdd
dryy_bstp_nmix_lwpr low_of_year points
dryy_bstp_nmix_lwpr_date low_of_year_date yyyymmdd
seln_rsqn_rate sell_waiting_pct pct
shnu_rsqn_rate buy_waiting_pct pct
ntby_rsqn net_waiting_qty shares
prdy_nmix points_yesterday points
bstp_cls_code index_code text
futs_prdy_oprc open_yesterday points
futs_prdy_hgpr high_yesterday points
futs_prdy_lwpr low_yesterday points
futs_prpr points points
futs_prdy_vrss change points
futs_prdy_clpr close_yesterday points
futs_prdy_ctrt change_pct pct
hts_otst_stpl_qty open_interest contracts
otst_stpl_qty_icdc open_interest_change contracts
futs_oprc open points
futs_hgpr high points
futs_lwpr low points
futs_mxpr upper_limit points
futs_llam lower_limit points
basis theoretical_basis points
futs_sdpr base_points points
hts_thpr theoretical_points points
dprt gap_pct pct
crbr_aply_mxpr breaker_upper_limit points
crbr_aply_llam breaker_lower_limit points
futs_last_tr_date last_trading_date yyyymmdd
hts_rmnn_dynu days_left count
futs_lstn_medm_hgpr high_since_listing points
futs_lstn_medm_lwpr low_since_listing points
delta_val delta unstated
gama gamma unstated
theta theta unstated
vega vega unstated
rho rho unstated
hist_vltl historical_volatility unstated
hts_ints_vltl implied_volatility unstated
mrkt_basis market_basis points
acpr strike points
futs_shrn_iscd code text
futs_askp ask points
futs_bidp bid points
kospi200_nmix kospi200 points
kospi200_prdy_vrss kospi200_change points
kospi200_prdy_ctrt kospi200_change_pct pct
kospi200_prdy_vrss_sign kospi200_change_sign text
tday_rltv strength pct
futs_antc_cnpr expected_points points
futs_antc_cntg_vrss expected_change points
frgn_reg_ntby_pbmn registered_foreign_net_won mwon
frgn_nreg_ntby_pbmn unregistered_foreign_net_won mwon
rsym realtime_key text
zdiv decimals count
base base_price foreign
pvol volume_yesterday shares
last price foreign
sign change_sign text
diff change foreign
rate change_pct pct
tvol volume shares
tamt value foreign
ordy orderable text
rvse_cncl_dvsn_cd change_code text
rvse_cncl_dvsn_cd_name change_name text
rjct_rson reason_code text
rjct_rson_name reason text
tr_mket_name market_name text
tr_crcy_cd currency text
natn_cd country_code text
natn_kor_name country text
ft_ord_qty order_qty shares
ft_ccld_qty filled_qty shares
nccs_qty open_qty shares
ft_ord_unpr3 order_price foreign
ft_ccld_unpr3 filled_price foreign
ft_ccld_amt3 filled_amount foreign
ovrs_excg_cd exchange text
prcs_stat_name state text
loan_type_cd loan_type text
usa_amk_exts_rqst_yn extends_after_market flag
splt_buy_attr_name split_buy text
access_token token text
token_type token_type text
expires_in lives_seconds count
access_token_token_expired ends_at text
code code text
message message text
approval_key approval_key text
BODY body text
HASH hash text
bsop_hour at hhmmss
whol_smtn_seln_vol sold_qty shares
whol_smtn_shnu_vol bought_qty shares
whol_smtn_ntby_qty net_qty shares
whol_smtn_seln_tr_pbmn sold_won won
whol_smtn_shnu_tr_pbmn bought_won won
whol_smtn_ntby_tr_pbmn net_won won
whol_ntby_vol_icdc net_qty_change shares
whol_ntby_tr_pbmn_icdc net_won_change won
"""
# operation | output | one object or a list; then its fields, with another unit after a colon where it differs
_BLOCKS = """
order-cash buy | output | one
    KRX_FWDG_ORD_ORGNO ODNO ORD_TMD
order-cash sell | output | one
    KRX_FWDG_ORD_ORGNO ODNO ORD_TMD
order-rvsecncl | output | one
    KRX_FWDG_ORD_ORGNO ODNO ORD_TMD
inquire-psbl-order | output | one
    ord_psbl_cash ord_psbl_sbst ruse_psbl_amt fund_rpch_chgs psbl_qty_calc_unpr nrcvb_buy_amt nrcvb_buy_qty
    max_buy_amt max_buy_qty cma_evlu_amt ovrs_re_use_amt_wcrc ord_psbl_frcr_amt_wcrc
inquire-psbl-sell | output | one
    pdno prdt_name buy_qty sll_qty cblc_qty nsvg_qty ord_psbl_qty pchs_avg_pric pchs_amt now_pric evlu_amt
    evlu_pfls_amt evlu_pfls_rt
inquire-balance | output1 | list
    pdno prdt_name trad_dvsn_name bfdy_buy_qty bfdy_sll_qty thdt_buyqty thdt_sll_qty hldg_qty ord_psbl_qty
    pchs_avg_pric pchs_amt prpr evlu_amt evlu_pfls_amt evlu_pfls_rt evlu_erng_rt loan_dt loan_amt stln_slng_chgs
    expd_dt fltt_rt bfdy_cprs_icdc item_mgna_rt_name grta_rt_name sbst_pric stck_loan_unpr
inquire-balance | output2 | list
    dnca_tot_amt nxdy_excc_amt prvs_rcdl_excc_amt cma_evlu_amt bfdy_buy_amt thdt_buy_amt nxdy_auto_rdpt_amt
    bfdy_sll_amt thdt_sll_amt d2_auto_rdpt_amt bfdy_tlex_amt thdt_tlex_amt tot_loan_amt scts_evlu_amt tot_evlu_amt
    nass_amt fncg_gld_auto_rdpt_yn pchs_amt_smtl_amt evlu_amt_smtl_amt evlu_pfls_smtl_amt tot_stln_slng_chgs
    bfdy_tot_asst_evlu_amt asst_icdc_amt asst_icdc_erng_rt
inquire-account-balance | output1 | list
    pchs_amt evlu_amt evlu_pfls_amt crdt_lnd_amt real_nass_amt whol_weit_rt
inquire-account-balance | output2 | one
    pchs_amt_smtl nass_tot_amt loan_amt_smtl evlu_pfls_amt_smtl evlu_amt_smtl tot_asst_amt tot_lnda_tot_ulst_lnda
    cma_auto_loan_amt tot_mgln_amt stln_evlu_amt crdt_fncg_amt ocl_apl_loan_amt pldg_stup_amt frcr_evlu_tota
    tot_dncl_amt cma_evlu_amt dncl_amt tot_sbst_amt thdt_rcvb_amt ovrs_stck_evlu_amt1 ovrs_bond_evlu_amt
    mmf_cma_mgge_loan_amt sbsc_dncl_amt pbst_sbsc_fnds_loan_use_amt etpr_crdt_grnt_loan_amt
inquire-psbl-rvsecncl | output | list
    ord_gno_brno odno orgn_odno ord_dvsn_name pdno prdt_name rvse_cncl_dvsn_name ord_qty ord_unpr ord_tmd
    tot_ccld_qty tot_ccld_amt psbl_qty sll_buy_dvsn_cd ord_dvsn_cd mgco_aptm_odno excg_dvsn_cd excg_id_dvsn_cd
    excg_id_dvsn_name stpm_cndt_pric stpm_efct_occr_yn
inquire-daily-ccld | output1 | list
    ord_dt ord_gno_brno odno orgn_odno ord_dvsn_name sll_buy_dvsn_cd sll_buy_dvsn_cd_name pdno prdt_name ord_qty
    ord_unpr ord_tmd tot_ccld_qty avg_prvs cncl_yn tot_ccld_amt loan_dt ordr_empno ord_dvsn_cd cncl_cfrm_qty rmn_qty
    rjct_qty ccld_cndt_name inqr_ip_addr cpbc_ordp_ord_rcit_dvsn_cd cpbc_ordp_infm_mthd_dvsn_cd infm_tmd ctac_tlno
    prdt_type_cd excg_dvsn_cd cpbc_ordp_mtrl_dvsn_cd ord_orgno rsvn_ord_end_dt excg_id_dvsn_Cd stpm_cndt_pric
    stpm_efct_occr_dtmd
inquire-daily-ccld | output2 | one
    tot_ord_qty tot_ccld_qty tot_ccld_amt prsm_tlex_smtl pchs_avg_pric
inquire-price | output | one
    iscd_stat_cls_code marg_rate rprs_mrkt_kor_name new_hgpr_lwpr_cls_code bstp_kor_isnm temp_stop_yn
    oprc_rang_cont_yn clpr_rang_cont_yn crdt_able_yn grmn_rate_cls_code elw_pblc_yn stck_prpr prdy_vrss
    prdy_vrss_sign prdy_ctrt acml_tr_pbmn acml_vol prdy_vrss_vol_rate stck_oprc stck_hgpr stck_lwpr stck_mxpr
    stck_llam stck_sdpr wghn_avrg_stck_prc hts_frgn_ehrt frgn_ntby_qty:shares pgtr_ntby_qty pvt_scnd_dmrs_prc
    pvt_frst_dmrs_prc pvt_pont_val pvt_frst_dmsp_prc pvt_scnd_dmsp_prc dmrs_val dmsp_val cpfn rstc_wdth_prc
    stck_fcam stck_sspr aspr_unit hts_deal_qty_unit_val lstn_stcn hts_avls per pbr stac_month vol_tnrt eps bps
    d250_hgpr d250_hgpr_date d250_hgpr_vrss_prpr_rate d250_lwpr d250_lwpr_date d250_lwpr_vrss_prpr_rate
    stck_dryy_hgpr dryy_hgpr_vrss_prpr_rate dryy_hgpr_date stck_dryy_lwpr dryy_lwpr_vrss_prpr_rate dryy_lwpr_date
    w52_hgpr w52_hgpr_vrss_prpr_ctrt w52_hgpr_date w52_lwpr w52_lwpr_vrss_prpr_ctrt w52_lwpr_date
    whol_loan_rmnd_rate ssts_yn stck_shrn_iscd fcam_cnnm cpfn_cnnm apprch_rate frgn_hldn_qty vi_cls_code
    ovtm_vi_cls_code last_ssts_cntg_qty invt_caful_yn mrkt_warn_cls_code short_over_yn sltr_yn mang_issu_cls_code
inquire-asking-price-exp-ccn | output1 | one
    aspr_acpt_hour askp# bidp# askp_rsqn# bidp_rsqn# askp_rsqn_icdc# bidp_rsqn_icdc# total_askp_rsqn total_bidp_rsqn
    total_askp_rsqn_icdc total_bidp_rsqn_icdc ovtm_total_askp_icdc ovtm_total_bidp_icdc ovtm_total_askp_rsqn
    ovtm_total_bidp_rsqn ntby_aspr_rsqn new_mkop_cls_code
inquire-asking-price-exp-ccn | output2 | one
    antc_mkop_cls_code stck_prpr stck_oprc stck_hgpr stck_lwpr stck_sdpr antc_cnpr antc_cntg_vrss_sign
    antc_cntg_vrss antc_cntg_prdy_ctrt antc_vol stck_shrn_iscd vi_cls_code
inquire-daily-price | output | list
    stck_bsop_date stck_oprc stck_hgpr stck_lwpr stck_clpr acml_vol prdy_vrss_vol_rate prdy_vrss prdy_vrss_sign
    prdy_ctrt hts_frgn_ehrt frgn_ntby_qty flng_cls_code acml_prtt_rate
inquire-daily-itemchartprice | output1 | one
    prdy_vrss prdy_vrss_sign prdy_ctrt stck_prdy_clpr acml_vol acml_tr_pbmn hts_kor_isnm stck_prpr stck_shrn_iscd
    prdy_vol stck_mxpr stck_llam stck_oprc stck_hgpr stck_lwpr stck_prdy_oprc stck_prdy_hgpr stck_prdy_lwpr askp
    bidp prdy_vrss_vol vol_tnrt stck_fcam lstn_stcn cpfn hts_avls per eps pbr itewhol_loan_rmnd_ratem
inquire-daily-itemchartprice | output2 | list
    stck_bsop_date stck_clpr stck_oprc stck_hgpr stck_lwpr acml_vol acml_tr_pbmn flng_cls_code prtt_rate mod_yn
    prdy_vrss_sign prdy_vrss revl_issu_reas
inquire-time-itemchartprice | output1 | one
    prdy_vrss prdy_vrss_sign prdy_ctrt stck_prdy_clpr acml_vol acml_tr_pbmn hts_kor_isnm stck_prpr
inquire-time-itemchartprice | output2 | list
    stck_bsop_date stck_cntg_hour stck_prpr stck_oprc stck_hgpr stck_lwpr cntg_vol acml_tr_pbmn
inquire-time-dailychartprice | output1 | one
    prdy_vrss prdy_vrss_sign prdy_ctrt stck_prdy_clpr acml_vol acml_tr_pbmn hts_kor_isnm stck_prpr
inquire-time-dailychartprice | output2 | list
    stck_bsop_date stck_cntg_hour stck_prpr stck_oprc stck_hgpr stck_lwpr cntg_vol acml_tr_pbmn
chk-holiday | output | list
    bass_dt wday_dvsn_cd bzdy_yn tr_day_yn opnd_yn sttl_day_yn
search-stock-info | output | one
    pdno prdt_type_cd mket_id_cd scty_grp_id_cd excg_dvsn_cd setl_mmdd lstg_stqt lstg_cptl_amt cpta papr issu_pric
    kospi200_item_yn scts_mket_lstg_dt scts_mket_lstg_abol_dt kosdaq_mket_lstg_dt kosdaq_mket_lstg_abol_dt
    frbd_mket_lstg_dt frbd_mket_lstg_abol_dt reits_kind_cd etf_dvsn_cd oilf_fund_yn idx_bztp_lcls_cd
    idx_bztp_mcls_cd idx_bztp_scls_cd stck_kind_cd mfnd_opng_dt mfnd_end_dt dpsi_erlm_cncl_dt etf_cu_qty prdt_name
    prdt_name120 prdt_abrv_name std_pdno prdt_eng_name prdt_eng_name120 prdt_eng_abrv_name dpsi_aptm_erlm_yn
    etf_txtn_type_cd etf_type_cd lstg_abol_dt nwst_odst_dvsn_cd sbst_pric thco_sbst_pric thco_sbst_pric_chng_dt
    tr_stop_yn admn_item_yn thdt_clpr bfdy_clpr clpr_chng_dt std_idst_clsf_cd std_idst_clsf_cd_name
    idx_bztp_lcls_cd_name idx_bztp_mcls_cd_name idx_bztp_scls_cd_name ocr_no crfd_item_yn elec_scty_yn issu_istt_cd
    etf_chas_erng_rt_dbnb etf_etn_ivst_heed_item_yn stln_int_rt_dvsn_cd frnr_psnl_lmt_rt lstg_rqsr_issu_istt_cd
    lstg_rqsr_item_cd trst_istt_issu_istt_cd cptt_trad_tr_psbl_yn nxt_tr_stop_yn
search-info | output | one
    pdno prdt_type_cd prdt_name prdt_name120 prdt_abrv_name prdt_eng_name prdt_eng_name120 prdt_eng_abrv_name
    std_pdno shtn_pdno prdt_sale_stat_cd prdt_risk_grad_cd prdt_clsf_cd prdt_clsf_name sale_strt_dt sale_end_dt
    wrap_asst_type_cd ivst_prdt_type_cd ivst_prdt_type_cd_name frst_erlm_dt
inquire-vi-status | output | list
    hts_kor_isnm mksc_shrn_iscd vi_cls_code bsop_date cntg_vi_hour vi_cncl_hour vi_kind_code vi_prc vi_stnd_prc
    vi_dprt vi_dmc_stnd_prc vi_dmc_dprt vi_count
inquire-index-price | output | one
    bstp_nmix_prpr bstp_nmix_prdy_vrss prdy_vrss_sign bstp_nmix_prdy_ctrt acml_vol:kshares prdy_vol:kshares
    acml_tr_pbmn:mwon prdy_tr_pbmn bstp_nmix_oprc prdy_nmix_vrss_nmix_oprc oprc_vrss_prpr_sign
    bstp_nmix_oprc_prdy_ctrt bstp_nmix_hgpr prdy_nmix_vrss_nmix_hgpr hgpr_vrss_prpr_sign bstp_nmix_hgpr_prdy_ctrt
    bstp_nmix_lwpr prdy_clpr_vrss_lwpr lwpr_vrss_prpr_sign prdy_clpr_vrss_lwpr_rate ascn_issu_cnt uplm_issu_cnt
    stnr_issu_cnt down_issu_cnt lslm_issu_cnt dryy_bstp_nmix_hgpr dryy_hgpr_vrss_prpr_rate dryy_bstp_nmix_hgpr_date
    dryy_bstp_nmix_lwpr dryy_lwpr_vrss_prpr_rate dryy_bstp_nmix_lwpr_date total_askp_rsqn total_bidp_rsqn
    seln_rsqn_rate shnu_rsqn_rate ntby_rsqn
inquire-daily-indexchartprice | output1 | one
    prdy_vrss_sign bstp_nmix_prdy_ctrt prdy_nmix acml_vol:kshares acml_tr_pbmn:mwon hts_kor_isnm bstp_nmix_prpr
    bstp_cls_code prdy_vol:kshares bstp_nmix_oprc bstp_nmix_hgpr bstp_nmix_lwpr futs_prdy_oprc futs_prdy_hgpr
    futs_prdy_lwpr
inquire-daily-indexchartprice | output2 | list
    stck_bsop_date bstp_nmix_prpr bstp_nmix_oprc bstp_nmix_hgpr bstp_nmix_lwpr acml_vol:kshares acml_tr_pbmn:mwon
    mod_yn
futures inquire-price | output1 | one
    hts_kor_isnm futs_prpr futs_prdy_vrss prdy_vrss_sign futs_prdy_clpr futs_prdy_ctrt acml_vol:contracts
    acml_tr_pbmn:unstated hts_otst_stpl_qty otst_stpl_qty_icdc futs_oprc futs_hgpr futs_lwpr futs_mxpr futs_llam
    basis futs_sdpr hts_thpr dprt crbr_aply_mxpr crbr_aply_llam futs_last_tr_date hts_rmnn_dynu futs_lstn_medm_hgpr
    futs_lstn_medm_lwpr delta_val gama theta vega rho hist_vltl hts_ints_vltl mrkt_basis acpr
futures inquire-price | output2 | one
    bstp_cls_code hts_kor_isnm bstp_nmix_prpr prdy_vrss_sign bstp_nmix_prdy_vrss bstp_nmix_prdy_ctrt
futures inquire-price | output3 | one
    bstp_cls_code hts_kor_isnm bstp_nmix_prpr prdy_vrss_sign bstp_nmix_prdy_vrss bstp_nmix_prdy_ctrt
inquire-daily-fuopchartprice | output1 | one
    futs_prdy_vrss prdy_vrss_sign futs_prdy_ctrt futs_prdy_clpr acml_vol:contracts acml_tr_pbmn:unstated
    hts_kor_isnm futs_prpr futs_shrn_iscd prdy_vol:contracts futs_mxpr futs_llam futs_oprc futs_hgpr futs_lwpr
    futs_prdy_oprc futs_prdy_hgpr futs_prdy_lwpr futs_askp futs_bidp basis kospi200_nmix kospi200_prdy_vrss
    kospi200_prdy_ctrt kospi200_prdy_vrss_sign hts_otst_stpl_qty otst_stpl_qty_icdc tday_rltv hts_thpr dprt
inquire-daily-fuopchartprice | output2 | list
    stck_bsop_date futs_prpr futs_oprc futs_hgpr futs_lwpr acml_vol:contracts acml_tr_pbmn:unstated mod_yn
display-board-futures | output | list
    futs_shrn_iscd hts_kor_isnm futs_prpr futs_prdy_vrss prdy_vrss_sign futs_prdy_ctrt hts_thpr acml_vol:contracts
    futs_askp futs_bidp hts_otst_stpl_qty futs_hgpr futs_lwpr hts_rmnn_dynu total_askp_rsqn:contracts
    total_bidp_rsqn:contracts futs_antc_cnpr futs_antc_cntg_vrss antc_cntg_vrss_sign antc_cntg_prdy_ctrt
inquire-investor-time-by-market | output | list
    frgn_seln_vol frgn_shnu_vol frgn_ntby_qty frgn_seln_tr_pbmn frgn_shnu_tr_pbmn frgn_ntby_tr_pbmn prsn_seln_vol
    prsn_shnu_vol prsn_ntby_qty prsn_seln_tr_pbmn prsn_shnu_tr_pbmn prsn_ntby_tr_pbmn orgn_seln_vol orgn_shnu_vol
    orgn_ntby_qty orgn_seln_tr_pbmn orgn_shnu_tr_pbmn orgn_ntby_tr_pbmn scrt_seln_vol scrt_shnu_vol scrt_ntby_qty
    scrt_seln_tr_pbmn scrt_shnu_tr_pbmn scrt_ntby_tr_pbmn ivtr_seln_vol ivtr_shnu_vol ivtr_ntby_qty
    ivtr_seln_tr_pbmn ivtr_shnu_tr_pbmn ivtr_ntby_tr_pbmn pe_fund_seln_tr_pbmn pe_fund_seln_vol pe_fund_ntby_vol
    pe_fund_shnu_tr_pbmn pe_fund_shnu_vol pe_fund_ntby_tr_pbmn bank_seln_vol bank_shnu_vol bank_ntby_qty
    bank_seln_tr_pbmn bank_shnu_tr_pbmn bank_ntby_tr_pbmn insu_seln_vol insu_shnu_vol insu_ntby_qty
    insu_seln_tr_pbmn insu_shnu_tr_pbmn insu_ntby_tr_pbmn mrbn_seln_vol mrbn_shnu_vol mrbn_ntby_qty
    mrbn_seln_tr_pbmn mrbn_shnu_tr_pbmn mrbn_ntby_tr_pbmn fund_seln_vol fund_shnu_vol fund_ntby_qty
    fund_seln_tr_pbmn fund_shnu_tr_pbmn fund_ntby_tr_pbmn etc_orgt_seln_vol etc_orgt_shnu_vol etc_orgt_ntby_vol
    etc_orgt_seln_tr_pbmn etc_orgt_shnu_tr_pbmn etc_orgt_ntby_tr_pbmn etc_corp_seln_vol etc_corp_shnu_vol
    etc_corp_ntby_vol etc_corp_seln_tr_pbmn etc_corp_shnu_tr_pbmn etc_corp_ntby_tr_pbmn
inquire-investor-daily-by-market | output | list
    stck_bsop_date bstp_nmix_prpr bstp_nmix_prdy_vrss prdy_vrss_sign bstp_nmix_prdy_ctrt bstp_nmix_oprc
    bstp_nmix_hgpr bstp_nmix_lwpr stck_prdy_clpr:points frgn_ntby_qty frgn_reg_ntby_qty frgn_nreg_ntby_qty
    prsn_ntby_qty orgn_ntby_qty scrt_ntby_qty ivtr_ntby_qty pe_fund_ntby_vol bank_ntby_qty insu_ntby_qty
    mrbn_ntby_qty fund_ntby_qty etc_ntby_qty etc_orgt_ntby_vol etc_corp_ntby_vol frgn_ntby_tr_pbmn
    frgn_reg_ntby_pbmn frgn_nreg_ntby_pbmn prsn_ntby_tr_pbmn orgn_ntby_tr_pbmn scrt_ntby_tr_pbmn ivtr_ntby_tr_pbmn
    pe_fund_ntby_tr_pbmn bank_ntby_tr_pbmn insu_ntby_tr_pbmn mrbn_ntby_tr_pbmn fund_ntby_tr_pbmn etc_ntby_tr_pbmn
    etc_orgt_ntby_tr_pbmn etc_corp_ntby_tr_pbmn
overseas price | output | one
    rsym zdiv base pvol last sign diff rate tvol tamt ordy
overseas inquire-nccs | output | list
    ord_dt ord_gno_brno odno orgn_odno pdno prdt_name sll_buy_dvsn_cd sll_buy_dvsn_cd_name rvse_cncl_dvsn_cd
    rvse_cncl_dvsn_cd_name rjct_rson rjct_rson_name ord_tmd tr_mket_name tr_crcy_cd natn_cd natn_kor_name ft_ord_qty
    ft_ccld_qty nccs_qty ft_ord_unpr3 ft_ccld_unpr3 ft_ccld_amt3 ovrs_excg_cd prcs_stat_name loan_type_cd loan_dt
    usa_amk_exts_rqst_yn splt_buy_attr_name
tokenP |  | one
    access_token token_type expires_in access_token_token_expired
revokeP |  | one
    code message
Approval |  | one
    approval_key
hashkey |  | one
    BODY HASH
program-trade-by-stock | output | list
    bsop_hour stck_prpr prdy_vrss prdy_vrss_sign prdy_ctrt acml_vol whol_smtn_seln_vol whol_smtn_shnu_vol
    whol_smtn_ntby_qty whol_smtn_seln_tr_pbmn whol_smtn_shnu_tr_pbmn whol_smtn_ntby_tr_pbmn whol_ntby_vol_icdc
    whol_ntby_tr_pbmn_icdc
"""
# what the user's own specification reads besides (spec §2.2)
_BLOCKS_OF_SPEC = """
inquire-psbl-order | output | one
    dnca_tot_amt tot_evlu_amt nass_amt
inquire-psbl-rvsecncl | output | list
    rmn_qty
"""


def _known() -> dict[str, Column]:
    """Return every field the broker has a name for, by that name as printed."""
    columns = [Column(wire, name, Unit(unit)) for wire, name, unit in map(str.split, _FIELDS.strip().splitlines())]
    for group, who in map(str.split, _INVESTORS.strip().splitlines()):
        for sum_, name, unit in map(str.split, _SUMS.strip().splitlines()):
            columns.append(Column(f"{group}_{sum_}", f"{who}_{name}", Unit(unit)))
    return {column.wire: column for column in columns}


def _levels(word: str) -> Iterator[str]:
    yield from (word.replace("#", str(n)) for n in range(1, LEVELS + 1)) if "#" in word else (word,)


def _column(word: str, known: Mapping[str, Column]) -> list[Column]:
    wire, _, unit = word.partition(":")
    column = known[wire]
    return [
        replace(column, wire=each, name=name, unit=Unit(unit) if unit else column.unit)
        for each, name in zip(_levels(wire), _levels(column.name), strict=True)
    ]


def _read(facts: str, known: Mapping[str, Column]) -> dict[str, dict[str, Block]]:
    """Return the outputs of each operation."""
    outputs: dict[str, dict[str, Block]] = {}
    for line in facts.strip().splitlines():
        if not line.startswith(" "):
            operation, output, shape = (part.strip() for part in line.split("|"))
            columns: dict[str, Column] = {}
            outputs.setdefault(operation, {})[output] = Block(shape == "list", columns)
            continue
        columns.update((column.wire.lower(), column) for word in line.split() for column in _column(word, known))
    return outputs


def _with_spec() -> Mapping[str, Outputs]:
    known = _known()
    outputs = _read(_BLOCKS, known)
    for operation, blocks in _read(_BLOCKS_OF_SPEC, known).items():
        for output, block in blocks.items():
            official = outputs[operation][output]
            outputs[operation][output] = replace(official, columns={**official.columns, **block.columns})
    return MappingProxyType(outputs)


OUTPUTS: Mapping[str, Outputs] = _with_spec()
