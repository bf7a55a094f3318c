"""Classes of proxies, of a kind that neither waits nor sends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from seqrpc.interface.answers import Finish
from seqrpc.interface.methods import method
from seqrpc.interface.proxies import ProxyClasses
from seqrpc.interface.service import RemoteService, Service
from seqrpc.interface.signature import MethodSpec
from seqrpc.limits import DEFAULT_LIMITS
from seqrpc.protocol.messages import Params, Response


class Echo(RemoteService):
    """Answers every call itself."""

    __slots__ = ("results",)

    def __init__(self, **results: Any) -> None:
        self.results = results


def calling(spec: MethodSpec, finish: Finish) -> Callable[..., Any]:
    def call(self: Echo, *args: Any, **kwargs: Any) -> tuple[str, Params, Any]:
        response = Response(1, None, self.results.get(spec.description.name), [])
        return spec.wire_name, spec.params(args, kwargs), finish(response, DEFAULT_LIMITS)

    return call


CLASSES = ProxyClasses(Echo, calling)


class Shapes(Service, name="org.example.Shapes"):
    @method
    async def move(self, point: int, /, by: int = 1, *, back: bool = False) -> float:
        """Move a point."""
        raise NotImplementedError

    @method
    async def count(self, to: int) -> AsyncIterator[int]:
        yield to

    async def hidden(self) -> None:
        pass


def test_a_proxy_has_the_methods_of_the_class_and_what_its_kind_has_in_common() -> None:
    shapes: Any = CLASSES.of(Shapes)(move=1)
    assert issubclass(CLASSES.of(Shapes), Echo)
    assert shapes.move(2, 3) == ("org.example.Shapes.move", (2, 3), 1.0)
    assert shapes.move(2, back=True)[1] == {"point": 2, "back": True}
    assert (shapes.move.__name__, shapes.move.__doc__) == ("move", "Move a point.")
    assert type(shapes).__name__ == "ShapesProxy"
    assert not hasattr(shapes, "hidden")
    with pytest.raises(AttributeError):
        shapes.colour = 5


def test_a_class_of_proxies_is_made_once_of_each_kind() -> None:
    assert CLASSES.of(Shapes) is CLASSES.of(Shapes)
    assert CLASSES.of(Shapes) is not ProxyClasses(Echo, calling).of(Shapes)


def test_a_class_that_cannot_be_called_is_a_type_error() -> None:
    class Wrong:
        async def stars(self, *args: int) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.stars"):
        CLASSES.of(Wrong)


def test_a_name_that_it_has_not_is_told_with_the_nearest_that_it_has() -> None:
    shapes: Any = CLASSES.of(Shapes)()
    with pytest.raises(AttributeError, match=r"^Shapes has no method 'mov' to call; did you mean 'move'\?$"):
        shapes.mov()
    with pytest.raises(AttributeError, match=r"^Shapes has no method 'colour' to call$"):
        _ = shapes.colour
    with pytest.raises(AttributeError, match=r"^Shapes\.hidden is not marked with @seqrpc\.method, so it cannot"):
        shapes.hidden()


@pytest.mark.parametrize(
    "given, told",
    [
        (Shapes(), r"a proxy is made of a class, and this is an object of Shapes: write proxy\(Shapes\)"),
        (CLASSES.of(Shapes)(), "a proxy is made of a class, and .* is a proxy already"),
        ("Shapes", "a proxy is made of a class that describes the service, got 'Shapes'"),
    ],
    ids=["object", "proxy", "name"],
)
def test_what_is_no_class_is_a_type_error(given: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        CLASSES.of(given)
