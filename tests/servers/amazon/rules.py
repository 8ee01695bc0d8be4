"""What a rule is: one behaviour of Amazon, with the page of its documentation that says so."""

from __future__ import annotations

from tests.servers.amazon.memory import Memory
from tests.servers.amazon.message import Answer, Request


class Rule:
    """``before`` may refuse a request, or change what is passed on of it; ``after`` changes the answer of the store
    behind, and is not asked of a refusal; ``ended`` follows in any case where ``before`` was asked."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def before(self, request: Request) -> Answer | None:
        return None

    def after(self, request: Request, answer: Answer) -> Answer:
        return answer

    def ended(self, request: Request) -> None:
        pass
