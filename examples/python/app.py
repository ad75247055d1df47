"""Greets each name on standard input. It knows nothing of the agent."""
import signal
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import greeter_pb2
import greeter_pb2_grpc


def reason(error):
    """Why the call failed, in one word: google.rpc.ErrorInfo in the status says it, if whoever ended the call does."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else []:
        if detail.Unpack(info):
            return info.reason
    return "no reason given"


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

with grpc.insecure_channel("greeter.example:50051") as channel:
    greeter = greeter_pb2_grpc.GreeterStub(channel)
    for line in sys.stdin:
        try:
            reply = greeter.SayHello(greeter_pb2.HelloRequest(name=line.strip()), timeout=5)
            print(reply.message, flush=True)
        except grpc.RpcError as error:
            print(f"{error.code().name} ({reason(error)}): {error.details()}", flush=True)
