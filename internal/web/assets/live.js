// What happens while one looks. Without this script the pages say the same, as of
// the moment they were made.
"use strict";

(() => {
  const steps = new Map(); // by index, the newest word on each step of the run shown
  let shown = ""; // the run that steps are of
  let source = null;
  let timer = 0;
  let asking = false;
  let again = false;

  const now = () => document.getElementById("now");
  const tell = (text) => {
    const link = document.getElementById("link");
    if (link && link.textContent !== text) link.textContent = text;
  };

  const seconds = (s) => {
    if (s < 0.1) return Math.ceil(s * 1000) + " ms";
    if (s < 1) return s.toFixed(2) + " s";
    if (s < 10) return s.toFixed(1) + " s";
    if (s < 120) return Math.round(s) + " s";
    const m = Math.round(s);
    return Math.floor(m / 60) + " min " + String(m % 60).padStart(2, "0") + " s";
  };

  // draw puts a step into the table, where the page shows one of its run.
  const draw = (step) => {
    const body = document.getElementById("steps");
    const pattern = document.getElementById("step-row");
    if (!body || !pattern || now().dataset.run !== step.run) return;
    let row = body.querySelector(`tr[data-step="${Number(step.index)}"]`);
    if (!row) {
      row = pattern.content.firstElementChild.cloneNode(true);
      row.dataset.step = step.index;
      const next = [...body.rows].find((r) => Number(r.dataset.step) > step.index);
      body.insertBefore(row, next || null);
    }
    const put = (name, text) => { row.querySelector(`[data-is="${name}"]`).textContent = text; };
    put("set", step.set || "the run");
    put("label", step.label);
    put("sign", step.sign);
    put("state", step.state);
    put("took", step.took);
    put("detail", step.detail);
    row.querySelector('[data-is="mark"]').className = "mark " + step.kind;
    const above = row.previousElementSibling;
    const same = !!above && above.querySelector('[data-is="set"]').textContent === (step.set || "the run");
    row.classList.toggle("same", same);
    row.querySelector('[data-is="set"]').classList.toggle("unseen", same);
    if (step.busy) row.dataset.began = step.began; else delete row.dataset.began;
    const bar = document.getElementById("progress");
    const text = document.getElementById("progress-text");
    if (bar && text) {
      bar.max = step.of;
      bar.value = step.at;
      text.textContent = step.progress;
    }
  };

  // refresh asks for the page anew and takes over the parts that changed.
  const refresh = async () => {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-part]")) {
        const part = fresh.querySelector(`[data-part="${old.dataset.part}"]`);
        if (!part || part.outerHTML === old.outerHTML) continue;
        const focused = old.contains(document.activeElement) ? document.activeElement : null;
        old.replaceWith(document.adoptNode(part));
        if (focused) refocus(part, focused);
      }
      const made = fresh.querySelector("footer time");
      if (made) document.querySelector("footer time").replaceWith(document.adoptNode(made));
      for (const step of steps.values()) draw(step);
      if (now().hasAttribute("data-pending")) later(2000);
    } catch {
      later(3000);
    }
    asking = false;
    if (again) { again = false; later(50); }
  };

  // refocus keeps the focus where it was, so that the keyboard goes on from there.
  const refocus = (part, old) => {
    const alike = (e) => ["href", "aria-labelledby"].every((a) => e.getAttribute(a) === old.getAttribute(a));
    const same = [...part.querySelectorAll("a, [tabindex]")].find(alike);
    if (same) same.focus({ preventScroll: true });
  };

  const later = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(refresh, ms);
  };

  const about = (run) => {
    if (run === shown) return;
    steps.clear();
    shown = run;
  };

  const onState = (event) => {
    const state = JSON.parse(event.data);
    about(state.run);
    const at = now().dataset;
    const alive = state.phase === "running" || state.phase === "interrupted";
    if (at.phase !== state.phase || (alive && at.run !== state.run)) later(150);
  };

  const onStep = (event) => {
    const step = JSON.parse(event.data);
    about(step.run);
    const before = steps.get(step.index);
    steps.set(step.index, step);
    draw(step);
    if (before && before.say === step.say) return; // it goes on
    document.getElementById("say").textContent = step.say;
    later(400); // the table of components changed with it
  };

  const connect = () => {
    if (source || document.hidden) return;
    source = new EventSource("/events");
    source.addEventListener("open", () => tell("It updates itself."));
    source.addEventListener("error", () => {
      tell("The connection is lost; it is tried again.");
      if (source && source.readyState === EventSource.CLOSED) { // it was turned away, not cut
        disconnect();
        setTimeout(connect, 10000);
      }
    });
    source.addEventListener("state", onState);
    source.addEventListener("step", onStep);
  };

  const disconnect = () => {
    if (source) source.close();
    source = null;
  };

  if (!now()) return;
  // A page that nobody sees holds no stream open.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { disconnect(); return; }
    connect();
    later(0);
  });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  setInterval(() => {
    for (const row of document.querySelectorAll("#steps tr[data-began]")) {
      const s = (Date.now() - Date.parse(row.dataset.began)) / 1000;
      if (s > 0) row.querySelector('[data-is="took"]').textContent = seconds(s);
    }
  }, 1000);
  connect();
  if (now().hasAttribute("data-pending")) later(2000);
})();
