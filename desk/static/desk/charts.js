// The candle chart with our fills on it, and the equity curve.
"use strict";

(() => {
  const REFRESH_MS = 15000;
  const locale = document.documentElement.lang === "ko" ? "ko-KR" : "en-GB";
  const won = (value) => Math.round(value).toLocaleString("en-US");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function looks() {
    return {
      layout: { background: { color: "transparent" }, textColor: colour("--quiet"), fontSize: 11, attributionLogo: false, fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { vertLines: { visible: false }, horzLines: { color: colour("--line") } },
      rightPriceScale: { borderVisible: false }, timeScale: { borderColor: colour("--line"), timeVisible: true, secondsVisible: false, rightOffset: 3 },
      crosshair: { mode: 0 }, localization: { locale, priceFormatter: won, dateFormat: "yyyy-MM-dd" },
    };
  }
  const candleLooks = () => ({
    upColor: colour("--up"), borderUpColor: colour("--up"), wickUpColor: colour("--up"),
    downColor: colour("--down"), borderDownColor: colour("--down"), wickDownColor: colour("--down"),
  });
  const curveLooks = () => ({ lineColor: colour("--accent"), topColor: colour("--accent") + "55", bottomColor: colour("--accent") + "05", lineWidth: 2 });

  // A plot of one kind: it asks for what `url` says, draws it, and asks again now and then.
  class Plot {
    constructor(id, url, draw, restyle) {
      this.box = document.getElementById(id);
      this.chart = LightweightCharts.createChart(this.box, { autoSize: true, ...looks() });
      this.empty = document.createElement("p");
      this.empty.className = "empty";
      this.empty.textContent = this.box.dataset.empty;
      this.box.append(this.empty);
      this.url = url;
      this.draw = draw;
      this.restyle = restyle;
      this.shown = "";
      document.addEventListener("theme", () => { this.chart.applyOptions(looks()); this.restyle(); this.load(); });
    }
    async load(isOther = false) {
      const url = this.url();
      if (!url) return;
      let got;
      try {
        const reply = await fetch(url);
        if (!reply.ok) return;
        got = await reply.json();
      } catch { return; } // the page itself says that the desk does not answer
      if (url !== this.url()) return; // another was chosen meanwhile
      this.empty.hidden = this.draw(got) > 0;
      if (isOther || this.shown !== url) this.chart.timeScale().fitContent();
      this.shown = url;
    }
  }

  function choose(tabs, plot) {
    tabs.addEventListener("click", (event) => {
      const pressed = event.target.closest("button");
      if (!pressed) return;
      for (const each of tabs.children) each.setAttribute("aria-pressed", String(each === pressed));
      plot.load(true);
    });
  }
  const chosen = (tabs) => tabs.querySelector("[aria-pressed=true]").value;

  const stock = document.getElementById("stock");
  const range = document.getElementById("candle-range");
  const box = document.getElementById("candles");
  const legend = document.getElementById("candle-legend");
  let bars, volume, marks;
  const candles = new Plot("candles",
    () => stock.value && `${box.dataset.url.replace("CODE", stock.value)}?range=${chosen(range)}`,
    (got) => {
      bars.setData(got.bars);
      volume.setData(got.bars.map((bar) => ({ time: bar.time, value: bar.volume, color: colour(bar.close >= bar.open ? "--up" : "--down") + "44" })));
      const times = new Set(got.bars.map((bar) => bar.time));
      marks.setMarkers(got.fills.filter((fill) => times.has(fill.time)).map((fill) => ({
        time: fill.time, position: fill.side === "BUY" ? "belowBar" : "aboveBar", shape: fill.side === "BUY" ? "arrowUp" : "arrowDown",
        color: colour(fill.side === "BUY" ? "--up" : "--down"), text: `${fill.side === "BUY" ? box.dataset.buy : box.dataset.sell} ${won(fill.qty)}`,
      })));
      return got.bars.length;
    },
    () => bars.applyOptions(candleLooks()));
  bars = candles.chart.addSeries(LightweightCharts.CandlestickSeries, { ...candleLooks(), priceFormat: { type: "price", precision: 0, minMove: 1 } });
  volume = candles.chart.addSeries(LightweightCharts.HistogramSeries, { priceScaleId: "", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
  volume.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
  bars.priceScale().applyOptions({ scaleMargins: { top: 0.12, bottom: 0.24 } });
  marks = LightweightCharts.createSeriesMarkers(bars, []);
  candles.chart.subscribeCrosshairMove((where) => {
    const bar = where.seriesData.get(bars);
    legend.textContent = bar ? [bar.open, bar.high, bar.low, bar.close].map(won).join("  ") : "";
  });

  const equityRange = document.getElementById("equity-range");
  let curve;
  const equity = new Plot("equity",
    () => `${document.getElementById("equity").dataset.url}?range=${chosen(equityRange)}`,
    (got) => { curve.setData(got.points); return got.points.length; },
    () => curve.applyOptions(curveLooks()));
  curve = equity.chart.addSeries(LightweightCharts.AreaSeries, { ...curveLooks(), priceFormat: { type: "price", precision: 0, minMove: 1 } });
  curve.priceScale().applyOptions({ scaleMargins: { top: 0.14, bottom: 0.1 } });

  choose(range, candles);
  choose(equityRange, equity);
  stock.addEventListener("change", () => candles.load(true));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-stock]");
    if (!link) return;
    event.preventDefault();
    if (![...stock.options].some((each) => each.value === link.dataset.stock)) stock.add(new Option(link.textContent, link.dataset.stock));
    stock.value = link.dataset.stock;
    candles.load(true);
  });
  document.addEventListener("fills", () => candles.load());
  const refresh = () => { candles.load(); equity.load(); };
  refresh();
  setInterval(refresh, REFRESH_MS);
})();
