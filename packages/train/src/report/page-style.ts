// The report's style sheet: light and dark by the reader's setting, readable from a phone to paper.

/** Lines differ by colour and by dash, so that colour is not needed to tell them apart (colours of Okabe & Ito 2008). */
export const styleCount = 6;

export const pageStyle = `
:root{color-scheme:light dark;--text:#1c2024;--soft:#5c6570;--page:#fff;--card:#f6f7f9;--edge:#d9dde3;--grid:#e6e9ed;
--heat:#0072b2;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b5528f;--c4:#9a6a00;--c5:#4d4d4d}
@media(prefers-color-scheme:dark){:root{--text:#e7eaee;--soft:#a2abb6;--page:#14171a;--card:#1d2125;--edge:#353b42;
--grid:#2a2f35;--heat:#3d9bdc;--c0:#56b4e9;--c1:#ff9248;--c2:#2fc79b;--c3:#e79bc7;--c4:#f0b83a;--c5:#bdbdbd}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:70rem;padding:1.5rem 1rem 4rem;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .25rem}
h2{font-size:1.2rem;margin:2.5rem 0 .75rem}
h3{font-size:1rem;margin:0}
p{margin:.25rem 0 .75rem}
.soft{color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .75rem;text-align:right;border-bottom:1px solid var(--edge);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;white-space:normal;min-width:4.5rem}
tbody th{font-weight:400}
.best{font-weight:700}
.swatch{display:inline-block;width:1.6rem;height:.7rem;margin-right:.4rem;vertical-align:-.05rem}
.swatch path{stroke-width:3}
fieldset{border:0;margin:0 0 1rem;padding:0;display:flex;flex-wrap:wrap;gap:.25rem .5rem;align-items:center}
legend{float:left;padding:0;margin-right:.75rem;color:var(--soft)}
fieldset label{padding:.2rem .8rem;border:1px solid var(--edge);border-radius:1rem;cursor:pointer}
fieldset input{position:absolute;opacity:0}
fieldset label:has(:checked){background:var(--text);color:var(--page);border-color:var(--text)}
fieldset label:has(:focus-visible),.plot:focus-visible,summary:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
.by-tokens,.by-time{display:none}
#charts:has([value=tokens]:checked) :is(.by-steps,.by-time){display:none}
#charts:has([value=tokens]:checked) .by-tokens{display:block}
#charts:has([value=time]:checked) :is(.by-steps,.by-tokens){display:none}
#charts:has([value=time]:checked) .by-time{display:block}
figure{margin:0 0 1.5rem;padding:1rem;background:var(--card);border:1px solid var(--edge);border-radius:.5rem}
figcaption{display:flex;flex-wrap:wrap;justify-content:space-between;gap:.25rem 1.5rem;margin-bottom:.75rem}
.key{display:flex;flex-wrap:wrap;gap:.1rem 1.25rem;font-size:.85rem;margin:0;padding:0;list-style:none}
.small-charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:0 1rem}
.small-charts .plot{height:8rem}
.plot{position:relative;height:17rem;margin:0 .75rem 2.6rem 3.2rem;touch-action:pan-y;outline-offset:6px}
.plot svg{position:absolute;inset:0;width:100%;height:100%;overflow:visible}
.tick,.unit{position:absolute;font-size:.75rem;color:var(--soft);white-space:nowrap;line-height:1}
.y.tick{right:calc(100% + .5rem);transform:translateY(-50%)}
.x.tick{top:calc(100% + .5rem);transform:translateX(-50%)}
.x.unit{top:calc(100% + 1.5rem);right:0}
svg path{fill:none;vector-effect:non-scaling-stroke;stroke-linejoin:round;stroke-linecap:round}
.grid{stroke:var(--grid);stroke-width:1}
.line{stroke-width:2}
.faint{stroke-width:1;opacity:.3;stroke-dasharray:none!important}
.dots{stroke-width:7;stroke-dasharray:none!important}
.cross{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
.style-0{stroke:var(--c0)}
.style-1{stroke:var(--c1);stroke-dasharray:7 4}
.style-2{stroke:var(--c2);stroke-dasharray:2 4}
.style-3{stroke:var(--c3);stroke-dasharray:9 3 2 3}
.style-4{stroke:var(--c4);stroke-dasharray:12 5}
.style-5{stroke:var(--c5);stroke-dasharray:4 3}
.tip{position:absolute;top:.25rem;z-index:1;padding:.4rem .6rem;background:var(--page);border:1px solid var(--edge);
border-radius:.35rem;font-size:.8rem;line-height:1.45;pointer-events:none;white-space:nowrap;
box-shadow:0 2px 8px rgb(0 0 0/.15);font-variant-numeric:tabular-nums}
.tip b{font-weight:600}
.heat td{text-align:center;min-width:3.6rem;border:1px solid var(--page);
background:color-mix(in srgb,var(--heat) var(--share),transparent)}
.heat th{border:0}
.heat tbody th{padding-right:.75rem;color:var(--soft)}
.heat thead th{text-align:center}
blockquote{margin:0 0 1rem;padding:.75rem 1rem;background:var(--card);border-left:3px solid var(--edge);
border-radius:0 .35rem .35rem 0;white-space:pre-wrap;overflow-wrap:anywhere;font-family:ui-monospace,Menlo,Consolas,monospace;
font-size:.85rem}
blockquote b{font-weight:700}
details{margin:.5rem 0}
summary{cursor:pointer}
pre{overflow-x:auto;padding:.75rem 1rem;background:var(--card);border-radius:.35rem;font-size:.8rem}
@media(max-width:32rem){body{padding:1rem .75rem 3rem}figure{padding:.75rem .5rem}.plot{height:14rem;margin-left:2.8rem}
th,td{padding:.35rem .4rem}tbody th{white-space:normal}.heat tbody th,th:has(.swatch){white-space:nowrap}}
@media print{figure,blockquote{break-inside:avoid}details{display:none}}
@media(prefers-reduced-motion:no-preference){summary{transition:color .15s}}
`;
