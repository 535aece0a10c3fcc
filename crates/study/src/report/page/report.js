"use strict";
(() => {
  document.body.classList.add("js");

  // The threshold, of the pictures and of the open one.
  const score = document.getElementById("score");
  const cut = () => {
    const least = Number(score.value);
    document.getElementById("score-shown").textContent = least.toFixed(2);
    for (const box of document.querySelectorAll(".b[data-s]")) {
      box.classList.toggle("off", Number(box.dataset.s) < least);
    }
  };
  if (score) {
    score.addEventListener("input", cut);
    // A reload keeps the slider where it was.
    cut();
  }

  // One picture, all sides.
  const zoom = document.getElementById("zoom");
  const cards = [...document.querySelectorAll(".card")];
  let current = 0;
  const show = (index) => {
    current = (index + cards.length) % cards.length;
    const card = cards[current];
    const sides = document.getElementById("zoom-sides");
    sides.replaceChildren();
    document.getElementById("zoom-name").textContent =
      `${card.querySelector(".file").textContent} (${current + 1} of ${cards.length})`;
    for (const input of document.querySelectorAll("input[name=layer]")) {
      const side = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = input.parentElement.textContent;
      const scene = card.querySelector("svg").cloneNode(true);
      scene.classList.add(`side${input.value}`);
      side.append(caption, scene);
      sides.append(side);
    }
  };
  cards.forEach((card, index) => card.querySelector("button").addEventListener("click", () => {
    show(index);
    zoom.showModal();
  }));
  for (const button of zoom.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => show(current + Number(button.dataset.go)));
  }
  zoom.addEventListener("keydown", (event) => {
    const go = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (go) {
      event.preventDefault();
      show(current + go);
    }
  });
  zoom.addEventListener("click", (event) => event.target === zoom && zoom.close());

  // A cursor on each plot: by pointer, or by arrow keys.
  const axis = (text) => {
    const [low, high, from, to, log] = text.split(",").map(Number);
    return (place) => {
      const share = (place - from) / (to - from);
      return log ? low * (high / low) ** share : low + (high - low) * share;
    };
  };
  const short = (value) => {
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size < 0.001) return value.toExponential(1);
    return String(Number(value.toPrecision(size >= 1000 ? 5 : 3)));
  };
  for (const plot of document.querySelectorAll(".plot")) {
    const svg = plot.querySelector("svg");
    const [x, y] = [axis(svg.dataset.x), axis(svg.dataset.y)];
    const lines = [...plot.querySelectorAll("polyline")].map((line) =>
      line.getAttribute("points").split(" ").map((point) => point.split(",").map(Number)));
    const outputs = [...plot.querySelectorAll("output")];
    const last = outputs.map((output) => output.textContent);
    const stops = [...new Set(lines.flat().map((point) => point[0]))].sort((a, b) => a - b);
    const cursor = plot.querySelector(".cursor");
    let stop = stops.length - 1;
    const put = () => {
      const place = stops[stop];
      plot.classList.add("on");
      cursor.setAttribute("x1", place);
      cursor.setAttribute("x2", place);
      plot.querySelector(".at").textContent = `at ${short(x(place))}:`;
      lines.forEach((line, i) => {
        const near = line.reduce((a, b) => (Math.abs(b[0] - place) < Math.abs(a[0] - place) ? b : a));
        outputs[i].textContent = Math.abs(near[0] - place) < 3 ? short(y(near[1])) : "-";
      });
    };
    const clear = () => {
      plot.classList.remove("on");
      plot.querySelector(".at").textContent = "";
      outputs.forEach((output, i) => { output.textContent = last[i]; });
    };
    const nearest = (event) => {
      const box = svg.getBoundingClientRect();
      const place = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      stop = stops.reduce((a, b, i) => (Math.abs(b - place) < Math.abs(stops[a] - place) ? i : a), 0);
      put();
    };
    svg.addEventListener("pointermove", nearest);
    svg.addEventListener("pointerdown", nearest);
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("blur", clear);
    svg.addEventListener("keydown", (event) => {
      const go = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (go) {
        event.preventDefault();
        stop = Math.min(Math.max(stop + go, 0), stops.length - 1);
        put();
      }
    });
  }
})();
