from __future__ import annotations

import logging
from typing import Any

import pytest
from support.workers import Desk, Parent

import seqrpc
from seqrpc.calls.plans import Plan, argv_of, plan_for
from seqrpc.calls.workers import Origin
from seqrpc.limits import DEFAULT_LIMITS


def planned(service: Any = None, *args: Any, **options: Any) -> Plan:
    usual: dict[str, Any] = {
        "kwargs": None,
        "command": None,
        "serve": (),
        "allow": None,
        "interceptors": (),
        "connection_limits": DEFAULT_LIMITS,
        "grace": 1.0,
        "start_timeout": 1.0,
        "output": "inherit",
        "environment": None,
    }
    return plan_for(service, args, **{**usual, **options})


def test_a_class_is_planned_with_its_arguments() -> None:
    parent = Parent()
    plan = planned(Desk, 5, kwargs={"name": "ann"}, serve=parent, environment={"A": "b"}, nice=1)
    assert (plan.name, plan.origin) == ("Desk", Origin("support.workers", "Desk"))
    assert (plan.args, plan.kwargs, plan.services) == ((5,), {"name": "ann"}, (parent,))
    assert (plan.environment, plan.restraints.nice) == ({"A": "b"}, 1)
    assert "seqrpc.workers.child" in argv_of(plan)[-2]


def test_one_that_is_only_named_is_looked_at_in_the_child() -> None:
    plan = planned("no.module:Outer.Inner", 1, 2, kwargs={"x": 3})
    assert plan.name == "Outer.Inner"


def test_a_program_is_planned() -> None:
    plan = planned(command=["/usr/bin/thing", "-v"])
    assert (plan.name, plan.origin, plan.command) == ("thing", None, ("/usr/bin/thing", "-v"))
    argv = argv_of(plan)
    assert argv[-3:-1] == ["/usr/bin/thing", "-v"]
    assert "seqrpc.workers.launcher" in argv[-5]


@pytest.mark.parametrize(
    "service, options, kind, text",
    [
        (None, {}, TypeError, "a worker is a class of a service, or command=, and not both"),
        (Desk, {"command": ["x"]}, TypeError, "and not both"),
        (None, {"command": "thing -v"}, TypeError, r"command= takes a program and its arguments, as \['/usr"),
        (None, {"command": []}, TypeError, "command= takes a program"),
        (None, {"command": ["x"], "kwargs": {"a": 1}}, TypeError, "command= has its arguments in it"),
        (dict, {}, TypeError, "dict is no seqrpc.Service"),
        (Desk(), {}, TypeError, "a worker is made of the class of a service, or of 'module:Class', got"),
        (Desk, {"kwargs": [1]}, TypeError, r"kwargs= takes arguments by name, as \{'size': 3\}, got \[1\]"),
        (Desk, {"kwargs": {1: 2}}, TypeError, "kwargs= takes arguments by name"),
        (Desk, {"kwargs": {"size": 3}}, TypeError, "unexpected argument 'size'"),
        (Desk, {"grace": 0}, ValueError, "grace= takes seconds, more than 0, got 0"),
        (Desk, {"start_timeout": "long"}, TypeError, "start_timeout= takes seconds, got 'long'"),
        (Desk, {"output": "shout"}, TypeError, "output= is 'inherit', 'capture', or a logger, got 'shout'"),
        (Desk, {"environment": [1]}, TypeError, "environment= takes texts by name"),
        (Desk, {"environment": {"A": 1}}, TypeError, "environment= takes texts by name"),
        (Desk, {"environment": {"A": "x\0y"}}, ValueError, "environment= has 'A', which cannot be a variable"),
        (Desk, {"environment": {"A=": "x"}}, ValueError, "environment= has 'A='"),
        (Desk, {"serve": [3]}, TypeError, "3"),
        (Desk, {"user": 1.5}, TypeError, "user="),
        ("Desk", {}, ValueError, "'module:Class'"),
    ],
)
def test_what_is_wrong_is_told(service: Any, options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        planned(service, **options)


@pytest.mark.parametrize("output", ["inherit", "capture", logging.getLogger("x")])
def test_output_goes_where_it_is_wanted(output: Any) -> None:
    assert planned(Desk, output=output).output is output


def test_a_class_that_takes_what_has_no_name_is_no_worker() -> None:
    with pytest.raises(TypeError, match="parameters have names on the wire"):
        planned(Many)


class Many(seqrpc.Service):
    def __init__(self, *many: int) -> None: ...
