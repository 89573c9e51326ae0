"""What the parties of a world tell as it happens, held against the promises; what the server sees is in ghost.lua."""

from __future__ import annotations

from streamwork.broker.inspect import order
from streamwork.wire.message import decode_journal
from tests.model.parts import CONFIG
from tests.model.server import KEYS


class Promises:
    """The part of a `World` that listens."""

    def began(self, process, run):
        """A body began."""
        task_id = run.message.id
        self._in_place(process, run, task_id)
        for other in process.executors.running:
            if (
                other is not run
                and other.entry == run.entry
                and other.lane is run.lane
                and other.consumer == run.consumer
            ):
                self.broken = self.broken or f"P4: {run.consumer} runs {task_id} twice at the same time"

    def _in_place(self, process, run, task_id):
        """See that it runs where, when and in the order in which it should (P6, rules 5, 12, 17)."""
        lane, running = run.lane.name, process.executors.running
        needed = {tag for tag in lane.partition(":")[2].split(",") if tag}
        if not needed <= process.tags or self.shape.lane_of[task_id] != lane:
            self.broken = self.broken or f"P6: {task_id} of lane {lane} runs with tags {sorted(process.tags)}"
        if len(running) > CONFIG.worker.slots:
            self.broken = self.broken or f"rule 5: {process.name_here} runs {len(running)} at once"
        if run.is_suspect and run.attempt.crashes >= 2 and len(running) > 1:
            self.broken = self.broken or f"rule 17: {task_id} runs beside others"
        if run.attempt.crashes:
            return  # it was set aside until it could run alone
        if self.steady_ms - process.table.beat_at_ms >= CONFIG.liveness.ttl_ms // 2:
            self.broken = self.broken or f"rule 12: {process.name_here} begins under an old beat"
        if run.count == 1:
            place, before = order(run.entry), process.begun.get(lane)
            if before is not None and place <= before:
                self.broken = self.broken or f"P6: {task_id} begins after what came later"
            process.begun[lane] = place

    def forget_order(self):
        """Data was taken away: numbers may begin anew."""
        self.last_sent = {}
        for process in self.processes:
            process.begun = {}

    def spool_settled(self, outcomes):
        """A file of the spool was taken away because all in it is settled."""
        for outcome in outcomes:
            item = outcome.item
            task_id = item.result_key[len(KEYS.result_prefix) :]
            is_promised = outcome.server == self.run_id and not self.server.is_tainted and item.op[0] in "SK"
            if is_promised and not self.server.is_settled(item.lane, item.entry.decode()):
                self.broken = self.broken or f"P8: the spooled outcome of {task_id} was dropped"

    def accepted(self, client, task_id, lane, entry):
        """A producer was told that its message is in."""
        self.entries[task_id] = (lane, entry)
        if entry:
            place, line = order(entry.encode()), (client, lane)
            if place <= self.last_sent.get(line, place[:0]) or self.server.entry_holds(lane, entry) != task_id:
                self.broken = self.broken or f"P6: {task_id} is not in the order in which it was sent"
            self.last_sent[line] = place
        if not self.server.was_added(task_id):
            self.broken = self.broken or f"P1: acknowledged, and nowhere: {task_id}"

    def told(self, process, run, item, committed):
        """A process was told what became of an outcome."""
        if item.op[0] == "R":
            return
        task_id = item.result_key[len(KEYS.result_prefix) :]
        if self.server.is_excused(task_id):
            return
        is_there = self.server.outcome(task_id) == run.token
        if is_there != committed:
            said = "committed" if committed else "lost"
            self.broken = self.broken or f"P3: {run.token} was told {said}, there is {self.server.outcome(task_id)}"
        if item.op[0] == "D" and committed and "quarantined" in decode_journal(item.journal).detail:
            self._quarantined(task_id)

    def _quarantined(self, task_id):
        if task_id not in self.shape.poison and not self.outside_kills:
            self.broken = self.broken or f"P5: {task_id} was quarantined for what its neighbour did"
