"""A RabbitMQ of a suite's own: own node, ports and folders. It ends with the suite, and nothing else does."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness import free_port

# Where Debian keeps the server itself; what is on the path changes to a system user first.
PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class Broker:
    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="opossum-broker-")
        self.port, distribution, names = free_port(), free_port(), free_port()
        home = Path(self.dir.name)
        (home / "plugins").write_text("[].\n")
        (home / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 50MB\nlog.file.level = warning\n"
        )
        env = {
            "PATH": os.environ["PATH"], "HOME": str(home), "RABBITMQ_NODENAME": f"clients{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port), "RABBITMQ_DIST_PORT": str(distribution),
            "ERL_EPMD_PORT": str(names), "RABBITMQ_MNESIA_BASE": str(home / "data"),
            "RABBITMQ_LOG_BASE": str(home / "log"), "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"), "RABBITMQ_PID_FILE": str(home / "pid"),
            "ERL_CRASH_DUMP": str(home / "crash"), "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-start_epmd false +S 2:2 +sbwt none",
        }
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.names = subprocess.Popen(["epmd", "-address", "127.0.0.1", "-port", str(names)], **quiet)
        self.server = subprocess.Popen([PROGRAM], env=env, start_new_session=True, **quiet)
        self.wait_ready()

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2f"

    def wait_ready(self):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self.server.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2) as link:
                    link.sendall(b"AMQP\x00\x00\x09\x01")
                    if link.recv(1) == b"\x01":
                        return
            except OSError:
                pass
            time.sleep(0.1)
        self.stop()
        raise RuntimeError("the broker did not start")

    def stop(self):
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()
        self.names.kill()
        self.names.wait()
        self.dir.cleanup()
