// The report's script: values under the pointer, or under the arrow keys where a chart has the focus. Without it the
// page lacks only that. It is text because it runs in the page, not here; it uses no more than 2020's JavaScript.

export const pageScript = `
(() => {
  const charts = JSON.parse(document.getElementById("chart-data").textContent);
  const clock = (s) => s < 120 ? s.toFixed(1) + " s" : s < 7200 ? (s / 60).toFixed(1) + " min" : (s / 3600).toFixed(2) + " h";
  const number = (v) => Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en-US")
    : v !== 0 && Math.abs(v) < 1e-3 ? v.toExponential(2) : String(Number(v.toPrecision(4)));
  for (const plot of document.querySelectorAll("[data-chart]")) {
    const chart = charts[plot.dataset.chart];
    if (!chart) continue;
    const svg = plot.querySelector("svg");
    const make = (name) => svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
    const xs = [...new Set(chart.lines.flatMap((line) => line.points.map((point) => point[0])))].sort((a, b) => a - b);
    let cross, marks, tip, at = -1;
    const hide = () => {
      if (cross) { cross.remove(); marks.forEach((mark) => mark.remove()); tip.remove(); cross = undefined; }
    };
    const show = (index) => {
      at = Math.max(0, Math.min(xs.length - 1, index));
      hide();
      const x = xs[at];
      const share = (x - chart.x.low) / (chart.x.high - chart.x.low);
      cross = make("path");
      cross.setAttribute("class", "cross");
      cross.setAttribute("d", "M" + share * 1000 + " 0V1000");
      tip = plot.appendChild(document.createElement("div"));
      tip.className = "tip";
      tip.setAttribute("role", "status");
      const head = tip.appendChild(document.createElement("b"));
      head.textContent = chart.x.axis === "time" ? clock(x) : number(x) + " " + chart.x.axis;
      marks = [];
      for (const line of chart.lines) {
        if (!line.points.length || x < line.points[0][0] || x > line.points[line.points.length - 1][0]) continue;
        const near = line.points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
        const mark = make("path");
        mark.setAttribute("class", "dots style-" + line.style);
        const px = (near[0] - chart.x.low) / (chart.x.high - chart.x.low) * 1000;
        const py = (1 - (near[1] - chart.y.low) / (chart.y.high - chart.y.low)) * 1000;
        mark.setAttribute("d", "M" + px + " " + py + "h0");
        marks.push(mark);
        const row = tip.appendChild(document.createElement("div"));
        row.textContent = line.name + ": " + number(near[1]);
      }
      const wide = plot.clientWidth, left = share * wide;
      tip.style.left = Math.max(0, Math.min(wide - tip.offsetWidth, left + (left > wide / 2 ? -tip.offsetWidth - 10 : 10))) + "px";
    };
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const x = chart.x.low + (event.clientX - box.left) / box.width * (chart.x.high - chart.x.low);
      let best = 0;
      xs.forEach((value, index) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = index; });
      show(best);
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const stride = event.shiftKey ? Math.ceil(xs.length / 20) : 1;
      if (event.key === "ArrowRight") show(at + stride);
      else if (event.key === "ArrowLeft") show(at < 0 ? xs.length - 1 : at - stride);
      else if (event.key === "Home") show(0);
      else if (event.key === "End") show(xs.length - 1);
      else if (event.key === "Escape") hide();
      else return;
      event.preventDefault();
    });
  }
})();
`;
