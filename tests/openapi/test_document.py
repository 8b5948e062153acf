"""The document itself: valid in both versions, and what it shows is what it describes."""

import json
import urllib.request
from urllib.parse import quote

import pytest
from openapi_schema_validator import OAS30Validator, OAS31Validator
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from support.service import ROOT

VERSIONS = {
    "openapi.json": (OpenAPIV31SpecValidator, OAS31Validator),
    "openapi-3.0.json": (OpenAPIV30SpecValidator, OAS30Validator),
}
versions = pytest.mark.parametrize("name", VERSIONS)


def read(name):
    return json.loads((ROOT / "openapi" / name).read_text())


@versions
def test_it_is_valid(name):
    validator, _ = VERSIONS[name]
    assert [str(it) for it in validator(read(name)).iter_errors()] == []


@versions
def test_the_served_one_is_the_committed_one(service, name):
    with urllib.request.urlopen(f"{service.url}/{name}", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        assert json.load(answer) == read(name), "run `supercargo openapi`"


def escaped(name):
    return quote(str(name).replace("~", "~0").replace("/", "~1"))


def examples(document):
    """Every example in the document: where it stands, where its schema does, and it."""
    shared = document["components"]["examples"]
    open_places = [("", document)]
    while open_places:
        place, it = open_places.pop()
        children = enumerate(it) if isinstance(it, list) else it.items() if isinstance(it, dict) else ()
        # What stands in an example or a value is no part of the description.
        kept = [(name, child) for name, child in children if name not in ("example", "examples", "default", "enum", "const")]
        open_places += [(f"{place}/{escaped(name)}", child) for name, child in kept]
        if not isinstance(it, dict) or place.endswith("/properties"):
            continue
        # Of a parameter, a header, a media type; or of a schema itself.
        schema = f"{place}/schema" if "schema" in it else place
        shown = it.get("examples", [])
        if isinstance(shown, dict) and "schema" in it:
            for name, example in shown.items():
                example = shared[example["$ref"].rsplit("/", 1)[1]] if "$ref" in example else example
                yield f"{place}/examples/{name}", schema, example["value"]
        elif isinstance(shown, list):
            for example in shown:
                yield place, schema, example
        for name in ("example", "default"):
            if name in it:
                yield f"{place}/{name}", schema, it[name]


@versions
def test_every_example_is_what_its_schema_says(name):
    _, validator = VERSIONS[name]
    document = read(name)
    resource = Resource.from_contents(document, default_specification=DRAFT202012)
    registry = Registry().with_resource("urn:document", resource)
    faults, count = [], 0
    for place, schema, example in examples(document):
        count += 1
        reference = {"$ref": f"urn:document#{schema}"}
        check = validator(reference, registry=registry, format_checker=validator.FORMAT_CHECKER)
        faults += [f"{place}: {it.message}" for it in check.iter_errors(example)]
    assert faults == []
    assert count > 200, count
