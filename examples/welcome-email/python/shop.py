"""Registers a user by a chain of tasks, and does its share of their work: shop.py API DATABASE NAME EMAIL."""
import json
import signal
import sqlite3
import sys
import threading

import grpc
from outrigger.v1 import task_pb2 as pb
from outrigger.v1 import task_pb2_grpc as rpc

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

address, path, name, email = sys.argv[1:5]
done = {}


def save(user):
    """The same however often it is done: a task may come twice."""
    db = sqlite3.connect(path, timeout=5)
    with db:
        row = db.execute(
            "INSERT INTO users (name, email) VALUES (?, ?) ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING id",
            (user["name"], user["email"]),
        ).fetchone()
    db.close()
    return {**user, "id": row[0]}


kinds = {"validate-user": lambda user: user, "save-user": save}


def work(api, stop):
    """Leases tasks, does them, and says how they ended."""
    while not stop.is_set():
        leased = api.LeaseTasks(pb.LeaseTasksRequest(kinds=list(kinds), worker="shop in Python", max_tasks=4, wait={"seconds": 1}))
        for task in leased.tasks:
            lease = pb.TaskLease(id=task.id, attempt=task.attempt)
            try:
                result = json.dumps(kinds[task.kind](json.loads(task.payload.data)))
            except Exception as why:
                api.FailTask(pb.FailTaskRequest(lease=lease, error=str(why)))
                continue
            api.CompleteTask(pb.CompleteTaskRequest(lease=lease, result=pb.Payload(data=result.encode(), content_type="application/json")))
            done[task.kind] = done.get(task.kind, 0) + 1


def step(name, map, task, **more):
    return pb.ChainStep(name=name, task=task, map=map, **more)


def registration(user):
    """The chain: validate, save, welcome."""
    return pb.TaskSpec(chain=pb.ChainWork(input=pb.Payload(data=json.dumps(user).encode(), content_type="application/json"), steps=[
        step("validate", {"app.payload": "input"}, pb.TaskSpec(app=pb.AppWork(kind="validate-user"))),
        step("save", {"app.payload": "steps.validate.output"}, pb.TaskSpec(app=pb.AppWork(kind="save-user"))),
        step("welcome", {
            "email.to": "[steps.save.output.email]",
            "email.template.data_json": 'json({"name": steps.save.output.name, "id": steps.save.output.id})',
        }, pb.TaskSpec(queue="mails", email=pb.EmailWork(template=pb.EmailTemplate(name="welcome")))),
    ]))


with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
    api = rpc.TaskServiceStub(channel)
    stop = threading.Event()
    worker = threading.Thread(target=work, args=(api, stop))
    worker.start()
    try:
        id = api.SubmitTask(pb.SubmitTaskRequest(task=registration({"name": name, "email": email}), idempotency_key="register " + email)).task.id
        saved = api.WaitTask(pb.WaitTaskRequest(id=id, step="save"), timeout=30)
        print("saved as", json.loads(saved.step_output.data))
        ended = api.WaitTask(pb.WaitTaskRequest(id=id), timeout=30).task
        print("the chain is", pb.TaskState.Name(ended.state))
    finally:
        stop.set()
        worker.join()
