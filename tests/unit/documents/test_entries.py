"""What the page has of methods, types and errors."""

from __future__ import annotations

from typing import Any

from support.described import DESCRIPTOR, INT, LOGS, STR, document, method, param, schema_of
from support.html import Node, tree_of

from seqrpc.documents.entries import Group, error_group, interface_group, service_group, type_group
from seqrpc.documents.model import read
from seqrpc.documents.recipes import Recipes
from seqrpc.documents.trees import Document, Scalar

TOLD = read(LOGS)


def services(told: Document = TOLD) -> list[Group]:
    recipes = Recipes(told.schemas, "ADDRESS")
    return [service_group(service, [*told.methods_of(service.name)], recipes) for service in told.services]


def article(group: Group, name: str) -> Node:
    """Return what a group has of one entry."""
    return tree_of(group.section()).by_id(name)


def entry_of(*params: dict[str, Any], **more: Any) -> Node:
    (group,) = services(read(document(method("S.call", *params, **more))))
    return article(group, "S.call")


def part(node: Node, title: str) -> Node:
    """Return what follows a heading of an article, up to the next."""
    found = Node("")
    within = False
    for child in node.children:
        if isinstance(child, Node) and child.tag == "h4":
            within = child.text == title
        elif within:
            found.children.append(child)
    return found


def texts(node: Node, tag: str = "", class_: str = "") -> list[str]:
    return [found.text for found in node.every(tag, class_)]


def test_a_service_has_its_docstring_its_bases_and_its_methods() -> None:
    logs, search = services()
    tree = tree_of(logs.section())
    (section,) = tree.every("section")
    assert section.attributes["id"] == "service:Logs"
    assert texts(tree, "h2") == ["Service Logs"]
    assert "The daemon as its apps see it." in texts(tree, "p")
    assert texts(tree, "p", "note")[0] == "It has what these have: Base."
    assert texts(tree, "h3") == [method.name for method in TOLD.methods if method.service == "Logs"]
    assert "Base" not in tree_of(search.section()).text


def test_methods_without_a_service_have_a_group_too() -> None:
    (group,) = services(read(document(method("ping"))))
    assert texts(tree_of(group.section()), "h2") == ["Methods"]
    assert [entry.target for entry in group.entries] == ["ping"]


def test_the_contents_lead_to_everything_in_a_group() -> None:
    for group in services():
        section, contents = tree_of(group.section()), tree_of(group.contents())
        targets = [link.attributes["href"] for link in contents.every("a")]
        ids = [f"#{node.attributes['id']}" for node in section.every() if "id" in node.attributes]
        assert targets == ids
    assert texts(tree_of(services()[0].contents()), "a") == [
        "Service Logs", "follow", "list_logs", "open_log", "rotate", "touch",
    ]  # fmt: skip


def test_a_method_has_its_signature_summary_and_description() -> None:
    node = article(services()[0], "Logs.follow")
    assert texts(node, "pre")[0] == "follow(name: str, start: int | None = None) -> stream of str"
    assert texts(node, "p", "lead") == ["Stream the lines that are appended to a log file, without their ends."]
    assert any(told.startswith("If the log is cut short") for told in texts(node, "p"))


def test_parameters_have_type_default_bounds_and_what_the_docstring_says() -> None:
    told = part(article(services()[0], "Logs.follow"), "Parameters")
    assert texts(told, "dt") == ["name: str required", "start: int | None default None"]
    first, second = told.every("dd")
    assert first.text == "the log, as LogFile.name has it.1 to 255 characters"
    assert second.text == "the byte to begin with; by default the present end.int: at least 0"
    assert "Args" not in article(services()[0], "Logs.follow").text


def test_how_a_parameter_is_given_is_told() -> None:
    params = [
        param("a", INT, positional_only=True),
        param("b", {}, required=False, keyword_only=True),
        param("c", {**INT, "description": "How *many*.\n\n    x"}),
    ]
    told = part(entry_of(*params, **{"x-seqrpc": {"unannotated": ["b"]}}), "Parameters")
    assert texts(told, "dt") == [
        "a: int required, by position only",
        "b: Any optional, by name only, without annotation",
        "c: int required",
    ]
    assert texts(told, "em") == ["many"]
    assert texts(told, "blockquote") == ["x"]


def test_a_default_that_nobody_can_write_is_told_as_one() -> None:
    unnamed = param("a", {**INT, "x-seqrpc": {"default": "..."}}, required=False)
    assert texts(part(entry_of(unnamed), "Parameters"), "dt") == ["a: int optional"]


def test_types_lead_to_their_entries() -> None:
    node = article(services()[0], "Logs.list_logs")
    targets = {link.attributes["href"] for link in node.every("a")}
    assert {"#type:Order", "#type:LogFile"} <= targets
    assert "#object:Finder" in {link.attributes["href"] for link in article(services()[1], "Search.begin").every("a")}


def test_results_are_told_and_that_there_is_none() -> None:
    assert part(article(services()[0], "Logs.open_log"), "Result").text == "OwnedFd"
    assert part(article(services()[1], "Search.index"), "Result").text == "intHow many lines there were."
    assert "one-way" in part(article(services()[0], "Logs.touch"), "Result").text


def test_errors_are_told_with_links() -> None:
    told = part(article(services()[0], "Logs.open_log"), "Errors")
    assert [link.attributes["href"] for link in told.every("a")] == ["#error:logs.NoSuchLog"]
    assert texts(told, "dd") == ["There is no log file of that name in the served directory."]
    assert not part(article(services()[0], "Logs.touch"), "Errors").children


def test_who_may_call_is_told_as_far_as_the_document_does() -> None:
    assert part(article(services()[0], "Logs.open_log"), "Who may call it").text == (
        "same_user | group('adm')Whoever asked for this page may call it."
    )
    assert part(article(services()[0], "Logs.rotate"), "Who may call it").text == (
        "rootWhoever asked for this page may not call it."
    )
    assert not part(article(services()[1], "Search.begin"), "Who may call it").children
    assert part(entry_of(**{"x-seqrpc": {"rule": "root"}}), "Who may call it").text == "root"
    told = part(entry_of(**{"x-seqrpc": {"allowed": True}}), "Who may call it").text
    assert told == "Whoever asked for this page may call it."


def test_marks_tell_what_kind_of_call_it_is() -> None:
    logs, search = services()
    marks = {entry.target: texts(article(logs, entry.target), "li")[:3] for entry in logs.entries}
    assert marks["Logs.follow"][:2] == ["stream", "allowed"]
    assert marks["Logs.list_logs"][:2] == ["idempotent", "allowed"]
    assert marks["Logs.rotate"][:2] == ["sensitive", "not allowed"]
    assert marks["Logs.touch"][:2] == ["one-way", "allowed"]
    assert not [*article(search, "Search.begin").every("ul", "marks")]


def test_the_lines_that_call_a_method_are_there() -> None:
    assert texts(part(article(services()[0], "Logs.follow"), "How to call it"), "pre") == [
        "seqrpc call ADDRESS Logs.follow name=...",
        "await connection.call('Logs.follow', name='...')",
        "connection.call('Logs.follow', name='...')",
    ]
    assert texts(part(article(services()[1], "Search.index"), "How to call it"), "pre")[0] == (
        "seqrpc call ADDRESS Search.index lines=@FILE into=@FILE mode=1 odd=..."
    )


def test_where_a_command_line_does_not_do_that_is_said() -> None:
    told = read(document(method("S.call", param("a", {"x-seqrpc": {"type": "object", "interface": "O"}})),
                         interfaces={"O": {"name": "O", "methods": []}}))  # fmt: skip
    lines = texts(part(article(services(told)[0], "S.call"), "How to call it"), "pre")
    assert lines[0].startswith("# It takes an object")


def test_objects_have_their_methods_under_ids_of_their_own() -> None:
    group = interface_group("Finder", TOLD.interfaces["Finder"], Recipes(TOLD.schemas, "ADDRESS"))
    node = article(group, "object:Finder/Finder.next")
    assert texts(part(node, "How to call it"), "pre") == [
        "await holder.call('Finder.next')",
        "holder.call('Finder.next')",
    ]
    tree = tree_of(group.section())
    assert texts(tree, "h2") == ["Object Finder"]
    assert texts(tree, "p")[0] == "A search that goes on."


def test_classes_have_their_fields() -> None:
    group = type_group(TOLD.schemas)
    node = article(group, "type:LogFile")
    assert texts(node, "p", "note") == ["A dataclass."]
    assert "A log file, as it was when the list was made." in texts(node, "p")
    assert texts(node, "dt") == ["name: str required", "size: int required", "modified: datetime required"]
    assert texts(node, "dd") == ["Relative to the served directory: apt/history.log.", "bytes.", ""]


def test_what_is_special_of_a_class_on_the_wire_is_told() -> None:
    group = type_group(TOLD.schemas)
    plan = article(group, "type:Plan")
    assert texts(plan, "p", "note") == [
        "A Struct. On the wire its type is 'plan'. Fields that it does not have are an error.",
        "at least 1; at most 365",
    ]
    assert texts(plan, "dt")[1:] == ["keep: int default 7", "then: Plan | None default None"]
    assert texts(article(group, "type:Rotation"), "p", "note") == [
        "A NamedTuple. On the wire it is an array of its fields in their order."
    ]


def test_other_names_on_the_wire_and_fields_out_of_the_constructor_are_told() -> None:
    schema = {
        "type": "object",
        "properties": {"a-b": INT, "c": INT},
        "required": ["a-b"],
        "x-seqrpc": {"type": "attrs", "names": {"a-b": "a_b"}, "no_init": ["c"]},
    }
    empty = {"type": "object", "properties": {}, "x-seqrpc": {"type": "typeddict"}}
    group = type_group(read(document(schemas={"T": schema, "E": empty})).schemas)
    assert texts(article(group, "type:T"), "dt") == [
        "a_b: int required, a-b on the wire",
        "c: int optional, not an argument of the constructor",
    ]
    assert article(group, "type:E").text == "EA TypedDict.It has no fields."


def test_enums_and_flags_have_their_members() -> None:
    group = type_group(TOLD.schemas)
    assert texts(article(group, "type:Order"), "dt") == ["NAME = 'name'", "SIZE = 'size'"]
    assert "How a list is ordered." in texts(article(group, "type:Order"), "p")
    assert texts(article(group, "type:Mode"), "dt") == ["WORDS = 1", "NUMBERS = 2"]
    assert [texts(article(group, f"type:{key}"), "p", "note") for key in ("Order", "Mode")] == [
        ["An enum."],
        ["Flags."],
    ]


def test_other_names_of_types_are_spelled_out() -> None:
    node = article(type_group(TOLD.schemas), "type:Query")
    assert texts(node, "pre") == ["str | list[Query]"]
    assert [link.attributes["href"] for link in node.every("a")] == ["#type:Query", "#type:Query"]
    assert texts(article(type_group({"X": Scalar("int")}), "type:X"), "pre") == ["int"]


def test_errors_say_who_raises_them() -> None:
    group = error_group(TOLD)
    assert [entry.target for entry in group.entries] == ["error:logs.NoSuchLog"]
    node = article(group, "error:logs.NoSuchLog")
    assert texts(node, "p") == [
        "There is no log file of that name in the served directory.",
        "Raised by Logs.follow, Logs.open_log.",
        "OpenRPC's number: -32000",
    ]


def test_errors_of_objects_are_there_too() -> None:
    failing = method("O.get", errors=[{"message": "o.Gone"}, {"message": "a.B"}], result=DESCRIPTOR)
    told = read(
        document(interfaces={"O": {"name": "O", "methods": [failing]}}, schemas={"S": STR, "T": schema_of("S")})
    )
    group = error_group(told)
    assert [entry.target for entry in group.entries] == ["error:a.B", "error:o.Gone"]
    node = article(group, "error:o.Gone")
    assert texts(node, "p") == ["Raised by O.get."]
    assert [link.attributes["href"] for link in node.every("a")][-1] == "#object:O/O.get"


def test_what_has_an_empty_name_is_seen_all_the_same() -> None:
    (group,) = services(read(document(method(""))))
    assert [node.text for node in tree_of(group.contents()).every("a")] == ["Methods", "''"]


def test_types_are_in_alphabetical_order() -> None:
    group = type_group(read(document(schemas={"b": STR, "C": STR, "a": STR})).schemas)
    assert [entry.target for entry in group.entries] == ["type:a", "type:b", "type:C"]
