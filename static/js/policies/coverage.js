/* Coverage in the gutter: which lines the tests reached when they last ran. */
import {
  GutterMarker,
  RangeSet,
  StateEffect,
  StateField,
  gutter,
} from "../../vendor/codemirror/6.43.15/codemirror.js";

class LineMark extends GutterMarker {
  constructor(isCovered) {
    super();
    this.isCovered = isCovered;
  }

  eq(other) {
    return this.isCovered === other.isCovered;
  }

  toDOM() {
    const mark = document.createElement("span");
    mark.className = this.isCovered ? "cm-covered" : "cm-missed";
    mark.textContent = this.isCovered ? "▏" : "○";
    mark.title = this.isCovered ? "A test reached this line" : "No test reached this line";
    return mark;
  }
}

/** Keeps the gutter's width while there is nothing to mark. */
class Spacer extends GutterMarker {
  toDOM() {
    const space = document.createElement("span");
    space.textContent = "○";
    return space;
  }
}

const COVERED = new LineMark(true);
const MISSED = new LineMark(false);

/** Value: {covered: [line], missed: [line]}, or null to take the marks away. */
export const setCoverage = StateEffect.define();

const marks = StateField.define({
  create: () => RangeSet.empty,
  update(found, transaction) {
    for (const effect of transaction.effects) {
      if (effect.is(setCoverage)) return marksOf(effect.value, transaction.state.doc);
    }
    // What was covered is not known of a text that has changed since.
    return transaction.docChanged ? RangeSet.empty : found;
  },
});

function marksOf(lines, document) {
  if (!lines) return RangeSet.empty;
  const all = [
    ...lines.covered.map((line) => [line, COVERED]),
    ...lines.missed.map((line) => [line, MISSED]),
  ].filter(([line]) => line <= document.lines);
  all.sort(([one], [other]) => one - other);
  return RangeSet.of(all.map(([line, mark]) => mark.range(document.line(line).from)));
}

export const coverageGutter = [
  marks,
  gutter({ class: "cm-coverage", markers: (view) => view.state.field(marks), initialSpacer: () => new Spacer() }),
];
