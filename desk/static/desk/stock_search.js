// Beside a stock's code: the stocks whose code or name fits what is typed, to choose from.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const code = document.getElementById("id_stock_code");
  const name = document.getElementById("id_stock_name");
  if (!code || !name) return;
  const list = document.createElement("datalist");
  list.id = "stocks-found";
  document.body.append(list);
  let found = [];

  async function search(field) {
    const reply = await fetch(`/desk/stocks?q=${encodeURIComponent(field.value)}`);
    if (!reply.ok) return;
    found = (await reply.json()).stocks;
    list.replaceChildren(...found.map((stock) => new Option(field === code ? stock.name : stock.code, field === code ? stock.code : stock.name)));
  }
  for (const field of [code, name]) {
    field.setAttribute("list", list.id);
    field.setAttribute("autocomplete", "off");
    field.addEventListener("input", async () => {
      const stock = found.find((each) => each.code === field.value || each.name === field.value);
      if (stock) { code.value = stock.code; name.value = stock.name; return; }
      await search(field);
    });
  }
});
