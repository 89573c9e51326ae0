"""What can happen next: each action is a tuple of plain values, so that a schedule can be printed, replayed and cut."""

from __future__ import annotations

from streamwork.store.commands import plain
from tests.model.client import IDS
from tests.model.server import KEYS

SERVICES = ("beat", "reaper", "promoter", "restorer", "maintainer")


class Actions:
    """The actions of one world; each method answers whether it could be done."""

    def __init__(self, world):
        self.world = world

    def apply(self, action):
        """Do one, and let happen at once what follows from it."""
        world = self.world
        done = getattr(self, action[0])(*action[1:])
        world.loop.fire()
        if world.server.wrong is not None:
            world.broken = world.broken or world.server.wrong
        return done is not False

    # Requests and answers.

    def go(self, name, how="ok"):
        """Let a connection's oldest request be executed; ``late`` = its answer comes in a later step, ``lost`` = the
        connection breaks before the answer is heard, ``dead`` = before it is executed, ``part`` = of several one."""
        world, driver = self.world, self.world.drivers.get(name)
        if driver is None or not driver.sent:
            return False
        if how == "dead":
            driver.lose()
            return True
        if not world.execute(driver, 1 if how == "part" else 100):
            if how == "lost" and driver.is_blocked:
                driver.lose()
                return True
            return False
        if how == "lost":
            driver.lose()
        elif how == "ok" and not driver.is_blocked:
            world.deliver(driver)
        return True

    def hear(self, name):
        """Let a connection's oldest answer be heard."""
        driver = self.world.drivers.get(name)
        return driver is not None and self.world.deliver(driver)

    def signal(self, host_number):
        """Let a supervisor hear what is in the control stream."""
        world = self.world
        host = self._at(world.hosts, host_number)
        if host is None or host.is_dead or host.is_paused:
            return False
        if host.cursor is None:  # a new connection: what was missed is asked for
            host.cursor = world._newest_signal()
            world.spawn(host, host.refreshed(), f"{host.name_here}.refresh")
            return True
        if host.heard == world.server.signals:
            return False
        host.heard = world.server.signals
        rows = world.server.execute(plain("XRANGE", KEYS.control, b"(" + (host.cursor or b"0"), "+"))
        for entry, fields in rows:
            host.cursor = entry
            world.current = host
            host.keeper._heard(host.queue, fields[1].decode(), fields[3].decode())
        return bool(rows)

    # What parties do.

    def tick(self, host_number, name):
        """Begin a tick of a service."""
        host = self._at(self.world.hosts, host_number)
        return host is not None and not host.is_dead and host.tick(name)

    def audit(self, number):
        """Begin an audit of a process."""
        process = self._at(self.world.processes, number)
        if process is None or process.is_dead or process.is_paused or not self.world.may_audit(process):
            return False
        process.audit()
        return True

    def end(self, number, which, how):
        """End a body; that of a poison message takes its process along."""
        world = self.world
        process = self._at(world.processes, number)
        if process is None or process.is_dead or process.is_paused or not process.executors.running:
            return False
        run = process.executors.running[which % len(process.executors.running)]
        if run.message.id in world.shape.poison:
            process.die()
        else:
            world.current = process
            process.executors.end(run, how)
        return True

    def send(self, number, count):
        """Send the next messages in one chunk."""
        world, shape = self.world, self.world.shape
        client = self._at(world.clients, number)
        if client is None or client.is_sending or world.sent >= shape.messages:
            return False
        ids = IDS[world.sent : min(world.sent + count, shape.messages)]
        # All of a chunk go now, or none.
        ids = [task_id for task_id in ids if (task_id in shape.later) == (ids[0] in shape.later)]
        world.sent += len(ids)
        client.is_sending = True
        lanes = [shape.lane_of[task_id] for task_id in ids]
        whens = [self._when(task_id) for task_id in ids]
        world.spawn(client, client.send(ids, lanes, whens), f"{client.name_here}.send")
        return True

    def _when(self, task_id):
        when = self.world.shape.later.get(task_id)
        if when is None:
            return ""
        at_ms = self.world.wall_ms + when.ms
        self.world.server.not_before(task_id, at_ms)
        return str(at_ms) if when.is_instant else f"+{when.ms}"

    def cancel(self, number, which):
        """Ask for a cancellation of a message that was accepted."""
        world = self.world
        client = self._at(world.clients, number)
        if client is None or which >= world.sent:
            return False
        task_id = IDS[which]
        lane, entry = world.entries.get(task_id, ("", ""))
        world.spawn(client, client.cancel(task_id, lane, entry), f"{client.name_here}.cancel")
        return True

    # Time and faults.

    def time(self, ms):
        """Let time pass while nobody does anything."""
        self.world.advance(ms)

    def live(self, ms):
        """Let time pass while every supervisor that can beats as it should."""
        for _ in range(0, ms, 1_000):
            self.world.advance(1_000)
            for host in self.world.hosts:
                if not host.is_dead and not host.is_paused and host.tick("beat"):
                    self.flush(host.keeper.driver)

    def lone(self, number, ms):
        """Let time pass while one supervisor does all it should, and the others nothing; it ends within a tick."""
        host = self._at(self.world.hosts, number)
        if host is None or host.is_dead or host.is_paused:
            return False
        for _ in range(0, ms, 1_250):
            self.world.advance(1_250)
            self.flush(host.keeper.driver)
            for service in ("beat", "reaper"):
                host.tick(service)
        return True

    def deaf(self, number):
        """The connection on which a supervisor hears signals breaks."""
        host = self._at(self.world.hosts, number)
        if host is None or host.is_dead:
            return False
        host.cursor = None
        return True

    def flush(self, driver):
        """Execute and answer all that a connection has sent."""
        world = self.world
        for _ in range(50):
            if not (driver.answered and world.deliver(driver)) and not world.execute(driver):
                return
            world.loop.fire()

    def kill(self, number):
        """SIGKILL a process."""
        process = self._at(self.world.processes, number)
        if process is None or process.is_dead:
            return False
        self.world.outside_kills += 1
        process.die()
        return True

    def reap(self, number):
        """SIGCHLD: a supervisor learns that a process of its has died."""
        process = self._at(self.world.processes, number)
        host = process and process.host
        if process is None or not process.is_dead or host.is_dead or host.is_paused or process not in host.processes:
            return False
        host.see_off(process)
        return True

    def leave(self, number):
        """SIGTERM a process; what it cannot write before its drain is over goes to the spool."""
        process = self._at(self.world.processes, number)
        if process is None or not process.may_leave:
            return False
        process.leave()
        return True

    def keep(self, number):
        """Let a supervisor's reaper and maintainer do their turn."""
        host = self._at(self.world.hosts, number)
        if host is None or host.is_dead or host.is_paused:
            return False
        for service in ("reaper", "maintainer"):
            host.tick(service)
            self.flush(host.keeper.driver)
        return True

    def memory(self, is_full):
        """Say that Redis has little memory left, or that it has room."""
        self.world.server.is_full = is_full

    def fork(self, number):
        """A supervisor starts one more process."""
        host = self._at(self.world.hosts, number)
        if host is None or host.is_dead or host.is_paused or len(self.world.processes) >= 8:
            return False
        host.fork(self.world.shape.all_tags)
        return True

    def die(self, number):
        """SIGKILL a supervisor; its processes follow in steps of their own."""
        host = self._at(self.world.hosts, number)
        if host is None or host.is_dead:
            return False
        host.die()
        return True

    def pause(self, kind, number):
        """SIGSTOP a process or a supervisor."""
        party = self._at(getattr(self.world, kind), number)
        if party is None or party.is_dead or party.is_paused:
            return False
        party.is_paused = True
        return True

    def wake(self, kind, number):
        """SIGCONT."""
        party = self._at(getattr(self.world, kind), number)
        if party is None or party.is_dead or not party.is_paused:
            return False
        party.wake()
        return True

    def restart(self, down_ms):
        """The server is killed, is away for a while, and comes back with its data."""
        self.world.restart_server()
        self.world.advance(down_ms)

    def clock(self, ms):
        """Step the wall clock of the server and its clients."""
        self.world.wall_ms += ms
        self.world.server.stepped()

    def skew(self, ms):
        """Set the clients' wall clock apart from the server's."""
        self.world.skew_ms = ms

    def ungroup(self, which):
        """XGROUP DESTROY of a lane."""
        world = self.world
        lanes = world.shape.lanes
        world.server.taint()
        world.run(plain("XGROUP", "DESTROY", KEYS.lane(lanes[which % len(lanes)]), "workers"))
        world.wake_blocked()

    def flushall(self):
        """FLUSHALL."""
        world = self.world
        world.server.excuse()
        world.forget_order()
        world.run(plain("FLUSHALL"))
        world.wake_blocked()
        for host in world.hosts:
            host.cursor = b"0"

    @staticmethod
    def _at(parties, number):
        return parties[number] if number < len(parties) else None
