// How much each place mattered for an output, by several methods, each with the measures of how far it can be trusted.

function drawAttributions(root, view) {
  root.parentElement.hidden = view.attributions.length === 0;
  root.replaceChildren(...view.attributions.map(({method, axis: name, scores, target, trust}, number) => {
    const axis = view.axes[name], edges = Array.from({length: axis.labels.length + 1}, (_, i) => i);
    const words = make("div"), heading = target ? `${method}, for ${target}` : method;
    const panel = (panels[axis.kind] ?? panels.words)(words, axis, edges, {
      id: `attribution-${number}`, label: heading, point() {}, hold() {},
    });
    const most = Math.max(...scores, 1e-12);
    panel.paint({bin: place => (Math.max(scores[place], 0) / most) ** 2});  // squared: the color goes with the root
    const measures = Object.entries(trust).filter(([measure]) => !measure.startsWith("random "));
    const facts = make("dl", {className: "facts"}, ...measures.map(([measure, value]) => {
      const random = trust[`random ${measure}`];
      const beside = random === undefined ? "" : ` (random scores: ${random.toFixed(3)})`;
      return make("div", {}, make("dt", {textContent: measure}), make("dd", {textContent: value.toFixed(3) + beside}));
    }));
    const untested = make("p", {className: "soft", textContent: "Its faithfulness was not measured."});
    return make("article", {}, make("h3", {textContent: heading}), words, measures.length ? facts : untested);
  }));
}
