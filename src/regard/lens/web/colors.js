// Color maps of weights, on one scale from 0 to 1 in every map: the color goes with the square root of the weight, so
// that a weight of 1% can be told from none.

const COLOR_MAPS = {
  blue: ["#f3f6fa", "#c3dcf0", "#7fb8dd", "#3a87c2", "#135a9e", "#0a2f63"],
  "blue on dark": ["#1a2027", "#1b3a57", "#1f5d91", "#3a87c2", "#7fb8dd", "#d8ecff"],
  cividis: ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"],
};
const TICKS = [0, 0.01, 0.1, 0.25, 0.5, 1];
const LEVELS = 256;
const TINTED = 0.005;  // the least weight that tints a word

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let palette;  // {css: colors of LEVELS levels, pixels: the same as ImageData holds them, ink: black or white on each}

function choosePalette(name) {
  const stops = COLOR_MAPS[name === "blue" && prefersDark.matches ? "blue on dark" : name].map(rgbOf);
  const levels = Array.from({length: LEVELS}, (_, i) => {
    const place = i / (LEVELS - 1) * (stops.length - 1), before = Math.min(Math.floor(place), stops.length - 2);
    return stops[before].map((channel, c) => Math.round(channel + (place - before) * (stops[before + 1][c] - channel)));
  });
  palette = {
    css: levels.map(([r, g, b]) => `rgb(${r} ${g} ${b})`),
    pixels: Uint32Array.from(levels, ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0),
    ink: levels.map(color => luminance(color) > 0.179 ? "#000" : "#fff"),  // 0.179: equal contrast to both
  };
}

const levelOf = weight => Math.round(Math.sqrt(Math.min(Math.max(weight, 0), 1)) * (LEVELS - 1));

function rgbOf(color) {
  return [1, 3, 5].map(start => parseInt(color.slice(start, start + 2), 16));
}

// Of WCAG 2: relative luminance of a color.
function luminance(rgb) {
  const [r, g, b] = rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function drawColorBar(bar, ticks) {
  bar.style.background = `linear-gradient(to right, ${palette.css.filter((_, i) => i % 15 === 0).join(", ")})`;
  ticks.replaceChildren(...TICKS.map(weight => {
    const tick = make("span", {textContent: `${100 * weight}${weight === 1 ? "%" : ""}`});
    tick.style.insetInlineStart = `${100 * Math.sqrt(weight)}%`;
    return tick;
  }));
}
