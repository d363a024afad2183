// The map: land as dots, the regions, and the links between them, along which what is written can be seen to travel.

import { svg } from "./page.js";

export const WIDTH = 1000;
export const HEIGHT = 400;
const WEST = -131;
const NORTH = 73;
const SCALE = WIDTH / 285;
const STEP = 2.6;

/** Coasts, roughly: longitude and latitude in turns. */
const LAND = [
  "-168 66 -140 70 -110 69 -95 72 -82 68 -78 62 -94 60 -92 56 -82 55 -79 51 -77 57 -70 61 -64 58 -56 53 -60 47 -65 44 -70 42 -74 39 -76 35 -81 31 -80 26 -82 29 -90 30 -97 27 -97 20 -92 18 -88 21 -88 16 -83 11 -80 8 -85 10 -94 16 -105 20 -110 26 -114 31 -120 34 -124 40 -124 48 -132 55 -145 60 -158 57 -165 60",
  "-58 76 -52 66 -45 60 -40 64 -22 70 -20 76",
  "-80 8 -72 12 -62 10 -52 5 -48 0 -35 -6 -39 -15 -48 -26 -58 -34 -62 -40 -66 -46 -72 -50 -74 -42 -71 -30 -70 -18 -76 -14 -81 -5 -78 2",
  "-6 35 10 37 11 33 20 31 32 31 36 24 43 12 51 11 42 -1 39 -8 40 -16 35 -22 32 -28 26 -34 19 -34 15 -26 12 -17 13 -8 9 -1 9 4 4 6 -8 4 -13 8 -17 14 -16 22 -10 29",
  "44 -16 50 -15 47 -25 44 -22",
  "-9 37 -9 43 -1 44 -4 48 2 51 8 54 8 57 11 56 12 54 20 55 24 59 30 60 22 61 25 65 21 64 17 60 16 56 12 56 8 58 5 60 10 64 16 69 26 71 40 67 44 66 45 68 60 69 70 73 85 74 105 77 115 74 140 73 160 70 178 69 178 64 163 60 160 54 156 51 155 58 142 59 135 54 141 52 138 46 131 43 128 40 129 35 126 35 125 39 121 39 118 38 122 37 120 34 122 31 119 25 113 22 108 21 106 18 109 13 106 9 103 11 100 13 100 8 104 1 101 3 98 9 97 16 94 17 90 22 86 20 80 15 80 10 77 8 73 17 72 21 67 25 58 25 56 27 50 30 48 30 52 24 56 25 59 22 55 17 45 13 43 13 39 21 35 28 34 31 36 36 30 36 27 37 26 40 29 41 36 41.5 41 41.5 37 45 34 45 31 46 28 44 28 42 24 40 24 37 22 37 19 41 14 45 13 44 18 40 16 38 12 42 8 44 3 43 0 40 -2 37 -5 36",
  "-6 50 1.5 51 1 53 -2 56 -3 58.5 -6 58 -3 54 -5 52",
  "-10 51.5 -6 52 -6 55 -9 54.5",
  "-24 65 -18 63.2 -13 65 -18 66.8",
  "130 31 136 34 141 35 142 41 146 43.5 141 45.5 139 38 132 35.5",
  "95 6 104 -1 106 -6 115 -8.5 106 -8 101 -2",
  "109 2 117 7 119 1 116 -4 110 -3",
  "120 0 125 1.5 121 -5 119 -3",
  "131 -0.5 141 -2.5 150 -8 147 -10 142 -9 137 -5",
  "119 18 122 18 126 7 122 8 120 13",
  "114 -22 122 -18 130 -12 136 -12 137 -16 141 -17 142 -11 146 -19 153 -26 151 -34 146 -39 139 -36 131 -31 124 -33 115 -34",
].map((coast) => {
  const numbers = coast.split(" ").map(Number);
  return numbers.flatMap((number, at) => (at % 2 ? [] : [[number, numbers[at + 1]]]));
});

const PLACES = { eu: [8.7, 50.1], us: [-78.5, 38.5], ap: [103.8, 1.3] };

/** How far each link bends, upwards. */
const BENDS = { "eu-us": 70, "eu-ap": 80, "us-ap": -190 };

const project = ([longitude, latitude]) => [(longitude - WEST) * SCALE, (NORTH - latitude) * SCALE];

function isInside(longitude, latitude, coast) {
  let inside = false;
  for (let at = 0, before = coast.length - 1; at < coast.length; before = at, at += 1) {
    const [x, y] = coast[at];
    const [u, v] = coast[before];
    if (y > latitude !== v > latitude && longitude < ((u - x) * (latitude - y)) / (v - y) + x) inside = !inside;
  }
  return inside;
}

/** The land, as one path of dots. */
function land() {
  let path = "";
  for (let latitude = NORTH - 2; latitude > NORTH - HEIGHT / SCALE; latitude -= STEP) {
    for (let longitude = WEST + 1; longitude < WEST + 285; longitude += STEP) {
      if (!LAND.some((coast) => isInside(longitude, latitude, coast))) continue;
      const [x, y] = project([longitude, latitude]);
      path += `M${x.toFixed(0)} ${y.toFixed(0)}h.01`;
    }
  }
  return path;
}

/** Where a region is, in parts of the map's size. */
export function placeOf(region) {
  const [x, y] = project(PLACES[region]);
  return [x / WIDTH, y / HEIGHT];
}

const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class WorldMap {
  constructor(place) {
    this.links = {};
    this.packets = svg("g", {});
    const lines = svg("g", {});
    for (const [name, bend] of Object.entries(BENDS)) {
      const [from, to] = name.split("-").map((region) => project(PLACES[region]));
      const middle = [(from[0] + to[0]) / 2, (from[1] + to[1]) / 2 - bend * 2];
      const path = svg("path", { class: "link", d: `M${from} Q${middle} ${to}` });
      const under = svg("path", { class: "link-under", d: `M${from} Q${middle} ${to}` });
      lines.append(under, path);
      // The middle of a quadratic curve.
      const at = [0, 1].map((axis) => (from[axis] + to[axis]) / 4 + middle[axis] / 2);
      this.links[name] = { path, at: [at[0] / WIDTH, at[1] / HEIGHT] };
    }
    const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" });
    picture.append(svg("path", { class: "land", d: land() }), lines, this.packets);
    place.prepend(picture);
  }

  setCondition(name, condition) {
    this.links[name].path.dataset.condition = condition;
  }

  /** Lets something be seen to travel from one region to another. On a link that is cut it gets half way. */
  send(from, to, { ms, isCut }) {
    if (isStill() || this.packets.childElementCount > 60) return;
    const name = this.links[`${from}-${to}`] ? `${from}-${to}` : `${to}-${from}`;
    const { path } = this.links[name];
    const length = path.getTotalLength();
    const isForward = name.startsWith(from);
    const packet = svg("circle", { class: "packet", r: 7, data: { region: from } });
    this.packets.append(packet);
    const began = performance.now();
    // Light is too fast for the eye; the order in which things arrive is kept.
    const lasts = Math.max(ms * 3, 350);
    const step = (now) => {
      const part = Math.min(Math.max((now - began) / lasts, 0), 1) * (isCut ? 0.46 : 1);
      const { x, y } = path.getPointAtLength(length * (isForward ? part : 1 - part));
      packet.setAttribute("cx", x);
      packet.setAttribute("cy", y);
      if (now - began < lasts) requestAnimationFrame(step);
      else packet.remove();
    };
    requestAnimationFrame(step);
  }
}
