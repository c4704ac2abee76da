"""The style sheet of reports: dense where the answer is, one column on a phone, black on paper."""

from __future__ import annotations

STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:78rem;margin:0 auto;padding:1rem 1.5rem 3rem}
header p,.quiet{color:var(--muted)} header p{margin:0;font-size:.93rem}
h1{font-size:1.05rem;line-height:1.35;margin:0;font-weight:650;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
.first h2{position:absolute;width:1px;height:1px;margin:0;overflow:hidden;clip-path:inset(50%)}
.verdict{font-size:1.22rem;line-height:1.38;margin:.6rem 0 .7rem;max-width:70rem;font-weight:500;
  text-wrap:pretty;overflow-wrap:anywhere}
.answer{font-size:1.1rem;font-weight:500;max-width:62rem;margin:.2rem 0 .5rem}
section>p,section>dl,section>ul{max-width:62rem}
section>h3{font-size:.98rem;margin:1.3rem 0 .3rem;font-weight:650}
section>ul{padding-left:1.2rem;margin:.3rem 0}
.trouble{border-left:4px solid var(--series-0);background:var(--panel);padding:.35rem .9rem;
  margin:.6rem 0;max-width:70rem;font-size:.93rem;overflow-wrap:anywhere}
.trouble p{margin:0;font-weight:650} .trouble ul{margin:.1rem 0 0;padding-left:1.2rem}
.scroll{overflow-x:auto}
table{border-collapse:separate;border-spacing:0;font-variant-numeric:tabular-nums;margin:0;font-size:.93rem;
  line-height:1.4}
caption{text-align:left;color:var(--muted);padding-bottom:.25rem;width:max-content;
  max-width:min(70rem,calc(100vw - 3rem))}
th,td{padding:.21rem .9rem .21rem 0;text-align:right;white-space:nowrap;
  border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:.2rem}
th:first-child,td:first-child,.text{text-align:left}
th:first-child{position:sticky;left:0;background:var(--paper)}
thead th{font-weight:600;color:var(--muted);border-bottom-color:var(--muted);
  vertical-align:bottom;white-space:normal}
tbody th{font-weight:400} tr.chosen th,tr.chosen td{font-weight:650}
tr.chosen .quiet{font-weight:400}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(20rem,100%),1fr));
  gap:1.2rem 2rem;align-items:start;margin:1rem 0}
figure{margin:0;min-width:0;max-width:34rem;break-inside:avoid}
figure h3{font-size:.95rem;margin:0 0 .15rem;font-weight:650}
figcaption{color:var(--muted);font-size:.84rem;line-height:1.35}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font-family:inherit}
details{border-top:1px solid var(--rule);padding:.55rem 0}
summary{cursor:pointer;font-weight:600}
:focus-visible{outline:2px solid var(--series-1);outline-offset:2px}
pre{background:var(--panel);padding:.8rem 1rem;overflow-x:auto;font-size:.85rem;line-height:1.4}
code{font-size:.92em} dt{font-weight:600} dd{margin:0 0 .5rem;overflow-wrap:anywhere}
a{color:inherit}
@media (min-width:75rem){.first .figures{grid-template-columns:repeat(3,1fr);gap:1rem 2rem}
  .first .figures{margin:.8rem 0 0}}
@media print{@page{size:A4;margin:14mm}
  main{padding:0;max-width:none} body{font-size:9.5pt} h2{margin-top:1.2rem}
  .verdict{font-size:13pt} h2,h3,caption,thead,summary,.answer{break-after:avoid}
  tr,.trouble,li,dt,dd{break-inside:avoid} dt{break-after:avoid}
  p,li{orphans:3;widows:3}
  .figures,.first .figures{grid-template-columns:repeat(2,1fr);gap:.8rem 1.2rem}
  .scroll{overflow:visible} table{font-size:8pt} th,td{padding:.12rem .45rem .12rem 0}
  caption{width:auto;max-width:none}
  th:first-child{position:static} tbody th{white-space:normal}
  summary{list-style:none} pre{white-space:pre-wrap;overflow-wrap:anywhere}
  details::details-content{content-visibility:visible;height:auto}
  details>pre{font-size:6.5pt;columns:3;column-gap:1rem}}
"""
