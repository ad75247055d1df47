"""Visits a SQLite database, each time under a permit of the agent: worker.py API DATABASE NAME VISITS."""
import signal
import sqlite3
import sys
import time

import grpc
from outrigger.v1 import resilience_pb2 as pb
from outrigger.v1 import resilience_pb2_grpc as rpc


def guarded(api, service, work):
    """Does the work under a permit, and again as often as the agent says. The code that work returns is the outcome."""
    permit = api.Acquire(pb.AcquireRequest(service=service), timeout=30).permit
    while True:
        code = grpc.StatusCode.UNKNOWN
        try:
            code = work(permit)
        finally:
            report = api.Report(pb.ReportRequest(permit_id=permit.id, code=code.value[0]), timeout=30)
        if not report.HasField("permit"):
            return code
        permit = report.permit


def visit(path, name):
    """Work on a connection of its own; what goes on in the database is written in it."""
    db = sqlite3.connect(path, timeout=5, isolation_level=None)
    try:
        row = db.execute("INSERT INTO visits (who, begun) VALUES (?, ?)", (name, time.time_ns())).lastrowid
        time.sleep(0.02)
        db.execute("UPDATE visits SET ended = ? WHERE id = ?", (time.time_ns(), row))
    except sqlite3.OperationalError:
        return grpc.StatusCode.UNAVAILABLE
    finally:
        db.close()
    return grpc.StatusCode.OK


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

address, path, name, visits = sys.argv[1:5]
with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
    api = rpc.ResilienceServiceStub(channel)
    for _ in range(int(visits)):
        outcome = guarded(api, "database", lambda permit: visit(path, name))
        if outcome != grpc.StatusCode.OK:
            sys.exit(f"{name}: {outcome.name}")
print(f"{name} made {visits} visits")
