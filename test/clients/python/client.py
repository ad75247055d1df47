"""Calls test.Echo at the address of argv[1], with argv[2] as authority if given."""
import sys
import threading

import grpc

options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
if len(sys.argv) > 2:
    options.append(("grpc.default_authority", sys.argv[2]))


def connect(*more):
    return grpc.insecure_channel(sys.argv[1], options=options + list(more))


channel = connect()


def unary(body, on=channel, **more):
    return on.unary_unary("/test.Echo/Unary").with_call(body, timeout=more.pop("timeout", 20), **more)


def check(ok, what):
    if not ok:
        raise AssertionError(what)


def fails(code, run):
    try:
        run()
    except grpc.RpcError as e:
        check(e.code() == code, f"{e.code()} {e.details()}")
        return e
    except grpc.FutureCancelledError:
        check(code == grpc.StatusCode.CANCELLED, "cancelled")
        return None
    raise AssertionError("no error")


def server_stream():
    got = list(channel.unary_stream("/test.Echo/Down")(bytes([50, 1, 2, 3]), timeout=20))
    check(len(got) == 50 and all(len(m) == 3 for m in got), len(got))


def client_stream():
    check(channel.stream_unary("/test.Echo/Up")((bytes(1000) for _ in range(50)), timeout=20) == b"50000", "another length")


def bidi():
    got = list(channel.stream_stream("/test.Echo/Bidi")((bytes([i]) * 2000 for i in range(50)), timeout=20))
    check(len(got) == 50 and got[49][0] == 49, len(got))


def cancel():
    call = channel.unary_unary("/test.Echo/Unary").future(b"x", timeout=20, metadata=[("x-sleep-ms", "10000")])
    threading.Timer(0.1, call.cancel).start()
    fails(grpc.StatusCode.CANCELLED, call.result)


def binary_metadata():
    value = bytes([0, 255, 10, 13])
    _, call = unary(b"x", metadata=[("x-echo-bin", value)])
    check(dict(call.trailing_metadata())["x-echo-bin"] == value, "other bytes")


def status_details():
    e = fails(grpc.StatusCode.FAILED_PRECONDITION, lambda: unary(b"x", metadata=[("x-code", "9")]))
    check(e.details() == "as asked: 100 % ü" and dict(e.trailing_metadata())["grpc-status-details-bin"], e.details())


def two_channels():
    with connect(("grpc.use_local_subchannel_pool", 1)) as other:
        check(unary(b"a")[0] + unary(b"b", on=other)[0] == b"ab", "another answer")


cases = {
    "unary": lambda: check(unary(b"hello")[0] == b"hello", "another answer"),
    "empty": lambda: check(unary(b"")[0] == b"", "another answer"),
    "big": lambda: check(len(unary(bytes(10 << 20))[0]) == 10 << 20, "another length"),
    "server_stream": server_stream,
    "client_stream": client_stream,
    "bidi": bidi,
    "deadline": lambda: fails(grpc.StatusCode.DEADLINE_EXCEEDED, lambda: unary(b"x", timeout=0.3, metadata=[("x-sleep-ms", "10000")])),
    "cancel": cancel,
    "binary_metadata": binary_metadata,
    "status_details": status_details,
    "two_channels": two_channels,
}

failed = 0
for name, run in cases.items():
    try:
        run()
        print("ok", name, flush=True)
    except Exception as e:  # whatever it is, the case failed
        failed += 1
        print("FAIL", name, repr(e), flush=True)
channel.close()
sys.exit(1 if failed else 0)
