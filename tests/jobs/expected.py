"""What publications, rollbacks and clean-ups must come to: plain sets, and no Redis."""

from dataclasses import dataclass, field

Answer = tuple[int, float] | None  # as_of and score


@dataclass(frozen=True, order=True)
class Turn:
    """One time that a generation was live; in order."""

    epoch: int
    as_of: int
    token: int


@dataclass
class Model:
    """What must be true of Redis and of the ledger."""

    keep: int
    live: Turn | None = None
    claim: int = 0
    scores: dict[int, dict[str, float]] = field(default_factory=dict)  # of each generation
    there: set[int] = field(default_factory=set)  # the generations that have blocks in Redis
    turns: set[Turn] = field(default_factory=set)  # those that the ledger has
    removed: set[int] = field(default_factory=set)
    overlay: dict[int, dict[str, tuple[int, float]]] = field(default_factory=dict)  # of each epoch

    def admit(self) -> Turn | None:
        """Let the ledger know what is live, and return what went live last, which Redis may have lost."""
        if self.live:
            self.turns.add(self.live)
        return max(self.turns, default=None)

    def free(self, claimed: int) -> None:
        """Remove what never went live and can't any more."""
        self.there -= {token for token in self.there if token < claimed} - {turn.token for turn in self.turns}

    def sweep(self, protected: set[int]) -> None:
        """Remove all but the last few that were live."""
        latest = {turn.token: turn for turn in sorted(self.turns)}
        known = sorted(latest.keys() - self.removed, key=lambda token: latest[token])
        gone = set(known[: -self.keep]) - protected - {self.live.token if self.live else 0}
        self.removed |= gone
        self.there -= gone

    def before(self) -> Turn | None:
        """Return the turn of the generation that a rollback brings, None for none."""
        if self.live is None:
            return None
        first = min(turn for turn in self.turns if turn.token == self.live.token)
        gone = {*self.removed, self.live.token}
        wanted = max((turn for turn in self.turns if turn.token not in gone and turn < first), default=None)
        return wanted if wanted and wanted.token in self.there else None

    def answer(self, key: str) -> Answer:
        """Return what a key has: the newer of generation and overlay."""
        if self.live is None:
            return None
        score = self.scores[self.live.token].get(key)
        fresh = self.overlay.get(self.live.epoch, {}).get(key)
        return fresh if fresh and fresh[0] > self.live.as_of else None if score is None else (self.live.as_of, score)
