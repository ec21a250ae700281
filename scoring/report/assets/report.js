"use strict";
const rows = [...document.querySelectorAll(".row")];
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const search = document.getElementById("search");
const sort = document.getElementById("sort");
const type = document.getElementById("type");
const buttons = [...document.querySelectorAll("button[data-flag]")];
const texts = rows.map((row) => row.textContent.toLowerCase());
const state = { flag: "", current: -1, visible: rows };

const number = (row, name, missing) => (name in row.dataset ? Number(row.dataset[name]) : missing);
const ORDERS = {
  number: () => 0,
  unsure: (row) => number(row, "sure", -1),
  sure: (row) => -number(row, "sure", -1),
  missed: (row) => number(row, "right", 2),
  disagreement: (row) => -number(row, "disagreement", 0),
};

for (const image of document.querySelectorAll("img[data-picture]")) {
  image.decoding = "async";
  image.src = pictures[image.dataset.picture];
}

function filter() {
  const wanted = search.value.trim().toLowerCase();
  const kind = type ? type.value : "";
  let count = 0;
  rows.forEach((row, index) => {
    const matches =
      (!state.flag || row.dataset.flags.split(" ").includes(state.flag)) &&
      (!kind || row.dataset.type === kind) &&
      (!wanted || texts[index].includes(wanted));
    row.hidden = !matches;
    count += matches;
  });
  document.getElementById("count").textContent =
    count === rows.length ? `${count.toLocaleString("en")} rows` : `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
  state.visible = [...document.querySelectorAll(".row:not([hidden])")];
  state.current = -1;
}

function arrange() {
  const key = ORDERS[sort.value];
  const order = rows.map((row) => [key(row), Number(row.dataset.number), row]);
  order.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  document.getElementById("list").append(...order.map((entry) => entry[2]));
  filter();
}

function choose(flag) {
  state.flag = state.flag === flag ? "" : flag;
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.flag === state.flag));
  filter();
}

function move(step) {
  if (!state.visible.length) return;
  state.current = Math.max(0, Math.min(state.visible.length - 1, state.current + step));
  const row = state.visible[state.current];
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

search.addEventListener("input", filter);
sort.addEventListener("change", arrange);
if (type) type.addEventListener("change", filter);
for (const button of buttons) button.addEventListener("click", () => choose(button.dataset.flag));
document.getElementById("list").addEventListener("click", (event) => {
  const row = event.target.closest(".row");
  if (event.target.matches("img")) row.classList.toggle("large");
  state.current = state.visible.indexOf(row);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    search.focus();
    return;
  }
  if (event.target.matches("input, select, summary")) {
    if (event.target === search && event.key === "ArrowDown") {
      event.preventDefault();
      move(1);
    }
    return;
  }
  const button = buttons.find((one) => one.dataset.key === event.key);
  if (event.key === "ArrowDown" || event.key === "j") move(1);
  else if (event.key === "ArrowUp" || event.key === "k") move(-1);
  else if (event.key === "/") search.focus();
  else if (event.key === "s") sort.focus();
  else if (event.key === "Enter" && event.target.matches(".row")) event.target.classList.toggle("large");
  else if (button) choose(button.dataset.flag);
  else return;
  event.preventDefault();
});
