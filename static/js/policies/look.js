/* How the editor looks: the page's tokens, so that light and dark follow the page. */
import {
  EditorView,
  HighlightStyle,
  syntaxHighlighting,
  tags,
} from "../../vendor/codemirror/6.43.15/codemirror.js";

const theme = EditorView.theme({
  "&": { color: "var(--ink)", backgroundColor: "var(--surface)", fontSize: "0.8125rem" },
  "&.cm-focused": { outline: "2px solid var(--accent)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55", minHeight: "18rem", maxHeight: "34rem" },
  ".cm-content": { caretColor: "var(--ink)", padding: "0.4rem 0" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": {
    backgroundColor: "var(--surface-sunken)",
    color: "var(--ink-quiet)",
    borderRight: "1px solid var(--line)",
  },
  ".cm-activeLine": { backgroundColor: "var(--line-active)" },
  ".cm-activeLineGutter": { backgroundColor: "var(--active-wash)", color: "var(--ink)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--selection)",
  },
  ".cm-selectionMatch": { backgroundColor: "var(--active-wash)", outline: "1px solid var(--line-strong)" },
  ".cm-matchingBracket, &.cm-focused .cm-matchingBracket": {
    backgroundColor: "var(--active-wash)",
    outline: "1px solid var(--accent)",
  },
  ".cm-tooltip, .cm-panels": {
    backgroundColor: "var(--surface-raised)",
    color: "var(--ink)",
    border: "1px solid var(--line-strong)",
  },
  ".cm-panels": { borderWidth: "1px 0 0" },
  ".cm-textfield, .cm-button": {
    backgroundColor: "var(--surface)",
    backgroundImage: "none",
    color: "var(--ink)",
    border: "1px solid var(--line-strong)",
    borderRadius: "4px",
  },
  ".cm-diagnostic": { padding: "0.3rem 0.6rem", maxWidth: "40rem", whiteSpace: "pre-wrap" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--danger)" },
  ".cm-covered, .cm-missed": { padding: "0 3px", cursor: "default", fontWeight: "700" },
  ".cm-covered": { color: "var(--good)" },
  ".cm-missed": { color: "var(--ink)" },
});

const words = HighlightStyle.define([
  { tag: tags.comment, color: "var(--ink-quiet)", fontStyle: "italic" },
  { tag: tags.keyword, color: "var(--accent)", fontWeight: "600" },
  { tag: tags.string, color: "var(--good)" },
  { tag: [tags.number, tags.atom], color: "var(--rego-value)" },
  { tag: tags.heading, color: "var(--ink)", fontWeight: "700", textDecoration: "underline" },
  { tag: tags.definition(tags.variableName), color: "var(--ink)", fontWeight: "700" },
  { tag: tags.function(tags.variableName), color: "var(--rego-call)" },
  { tag: tags.special(tags.variableName), color: "var(--rego-value)", fontWeight: "600" },
  { tag: tags.namespace, color: "var(--ink)" },
  { tag: [tags.operator, tags.bracket], color: "var(--ink-quiet)" },
]);

export const look = [theme, syntaxHighlighting(words)];
