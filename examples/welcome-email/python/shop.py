"""The shop in Python, beside the one in Go: shop.py API DATABASE.

It registers users by the same chain, and does its share of the work that both
submit. Each line of its input, "NAME EMAIL", is a user to register; it answers with
a line once the user is saved. It ends when its input does.
"""
import json
import re
import signal
import sqlite3
import sys
import threading
import time

import grpc
from outrigger.v1 import task_pb2 as pb
from outrigger.v1 import task_pb2_grpc as rpc

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

address, path = sys.argv[1:3]


class Permanent(Exception):
    """No other attempt would mend it."""


def validate(user):
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", user["email"]):
        raise Permanent(f'"{user["email"]}" is no e-mail address')
    return user


def save(user):
    """Does the same however often it is done: a task is done at least once, and now and then twice."""
    db = sqlite3.connect(path, timeout=5)
    try:
        with db:
            (user["id"],) = db.execute(
                "INSERT INTO users (name, email) VALUES (?, ?) ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING id",
                (user["name"], user["email"]),
            ).fetchone()
    finally:
        db.close()
    return user


kinds = {"validate-user": validate, "save-user": save}


def payload(value):
    return pb.Payload(data=json.dumps(value).encode(), content_type="application/json")


def patiently(call, request, **more):
    """Calls again while the agent is away."""
    while True:
        try:
            return call(request, **more)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.2)


def do(task):
    """Does a task and says how it ended."""
    lease = pb.TaskLease(id=task.id, attempt=task.attempt)
    try:
        result = kinds[task.kind](json.loads(task.payload.data))
    except Exception as error:
        why = str(error) or type(error).__name__
        patiently(api.FailTask, pb.FailTaskRequest(lease=lease, error=why, permanent=isinstance(error, Permanent)))
        return
    patiently(api.CompleteTask, pb.CompleteTaskRequest(lease=lease, result=payload(result)))


def work():
    """Leases tasks one by one, until the app stops."""
    request = pb.LeaseTasksRequest(kinds=list(kinds), worker="shop in Python", wait={"seconds": 1})
    while not stopping.is_set():
        for task in patiently(api.LeaseTasks, request).tasks:
            try:
                do(task)
            except grpc.RpcError as error:  # ABORTED: the lease is over, and another attempt counts
                print(f"shop.py: task {task.id}: {error.details()}", file=sys.stderr)


def step(name, fields, task, **more):
    return pb.ChainStep(name=name, map=fields, task=task, **more)


def registration(user):
    """The chain: validate, save, welcome."""
    remove = pb.StepCompensation(task=pb.TaskSpec(app=pb.AppWork(kind="delete-user")), map={"app.payload": "steps.save.output"})
    return pb.TaskSpec(chain=pb.ChainWork(input=payload(user), steps=[
        step("validate", {"app.payload": "input"}, pb.TaskSpec(app=pb.AppWork(kind="validate-user"))),
        step("save", {"app.payload": "steps.validate.output"}, pb.TaskSpec(app=pb.AppWork(kind="save-user")), compensation=remove),
        step(
            "welcome",
            {"email.to": "[steps.save.output.email]", "email.template.data_json": "json(steps.save.output)"},
            pb.TaskSpec(queue="mails", email=pb.EmailWork(template=pb.EmailTemplate(name="welcome"))),
        ),
    ]))


def register(name, email):
    """Returns the chain's id and the user, once it is saved."""
    request = pb.SubmitTaskRequest(task=registration({"name": name, "email": email}), idempotency_key="register " + email)
    chain = patiently(api.SubmitTask, request).task
    saved = patiently(api.WaitTask, pb.WaitTaskRequest(id=chain.id, step="save"), timeout=30)
    return chain.id, json.loads(saved.step_output.data)


with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)]) as channel:
    api = rpc.TaskServiceStub(channel)
    stopping = threading.Event()
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for line in sys.stdin:
        id, user = register(*line.split())
        print(id, user["id"], flush=True)
    stopping.set()
    worker.join(timeout=3)
