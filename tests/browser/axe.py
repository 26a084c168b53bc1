"""axe-core on a page, from a world of its own, so that the page's strict policy stays in force."""

import json
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "vendor" / "axe-core" / "4.14.1" / "axe.min.js"
# WCAG 2.2 at level AA includes every earlier version and level.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """
(async () => {
  const found = await axe.run(document, %s);
  return JSON.stringify(found.violations.map(one => [
    one.id, one.help,
    one.nodes.slice(0, 5).map(node => [node.target.join(" "), node.any.concat(node.all, node.none)
      .map(check => check.message).join(" ").slice(0, 300)]),
  ]));
})()
"""
CONTRAST = ["color-contrast", "link-in-text-block"]  # what another theme can change
# Everything else that the rules look at is where it was when only the width changes.
LAYOUT = [*CONTRAST, "target-size", "scrollable-region-focusable"]


class Axe:
    """The rules on one page of one browser. Lives as long as the page does."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._devtools = page.context.new_cdp_session(page)
        self._devtools.send("Page.enable")
        self._devtools.send("Runtime.enable")
        self._source = SOURCE.read_text(encoding="utf-8")
        self._world = 0

    def load(self) -> None:
        """Put the rules into the document that stands there now."""
        frame = self._devtools.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        made = self._devtools.send(
            "Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"}
        )
        self._world = made["executionContextId"]
        self._evaluate(self._source + ";0")

    def violations(self, *, rules: list[str] | None = None) -> list[str]:
        """What is wrong, a line each: rule, help, where and why. Without `rules`, all of them."""
        only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": TAGS}
        options = {"runOnly": only, "resultTypes": ["violations"]}
        found = json.loads(self._evaluate(RUN % json.dumps(options)))
        return [
            f"{rule}: {help_text}: {target}: {why}"
            for rule, help_text, nodes in found
            for target, why in nodes
        ]

    def _evaluate(self, expression: str) -> Any:
        answer = self._devtools.send(
            "Runtime.evaluate",
            {"expression": expression, "contextId": self._world, "awaitPromise": True,
             "returnByValue": True},
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")
