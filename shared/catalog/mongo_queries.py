"""What the MongoDB catalog asks beyond one key: conditions, the newest records, totals.

A record's indexed fields stand beside its text, in `by`, as text themselves.
"""

from typing import Any

from shared.catalog.totals import Place, Total, Totals, Wanted

Document = dict[str, Any]


def condition(wanted: Wanted) -> Document:
    return {f"by.{field}": {"$in": list(values)} for field, values in wanted.items()}


def newest_condition(wanted: Wanted, field: str, beyond: Place | None) -> Document:
    wants = condition(wanted)
    if beyond is not None:
        name = f"by.{field}"
        # The first term is implied by the others, and is what bounds the search of the index.
        wants["$and"] = [
            {name: {"$lte": beyond.value}},
            {"$or": [{name: {"$lt": beyond.value}}, {"_id": {"$lt": beyond.key}}]},
        ]
    return wants


def totals_pipeline(asked: Totals) -> list[Document]:
    wants: list[Document] = [condition(asked.where)]
    if asked.between is not None:
        bounds = {"$gte": asked.between.low, "$lt": asked.between.high}
        wants.append({f"by.{asked.between.field}": bounds})
    if asked.either:
        wants.append({"$or": [condition(each) for each in asked.either]})
    group: Document = {
        "_id": {f"g{number}": f"$by.{field}" for number, field in enumerate(asked.by)},
        "count": {"$sum": 1},
    }
    if asked.leading is not None:
        group["_id"]["g0"] = {"$substrBytes": [f"$by.{asked.by[0]}", 0, asked.leading]}
    for number, field in enumerate(asked.sums):
        group[f"s{number}"] = {"$sum": {"$toLong": f"$by.{field}"}}
    if asked.greatest is not None:
        group["greatest"] = {"$max": f"$by.{asked.greatest}"}
    steps: list[Document] = [{"$match": {"$and": wants}}, {"$group": group}]
    order = {f"_id.g{number}": 1 for number in range(len(asked.by))}
    if asked.largest_first and asked.sums:
        all_sums = {"$add": [f"$s{number}" for number in range(len(asked.sums))]}
        steps.append({"$set": {"all": all_sums}})
        order = {"all": -1, **order}
    return [*steps, {"$sort": order}, {"$skip": asked.offset}, {"$limit": asked.limit}]


def total_of(found: Document, asked: Totals) -> Total:
    return Total(
        by=tuple(found["_id"].get(f"g{number}") for number in range(len(asked.by))),
        count=found["count"],
        sums=tuple(int(found[f"s{number}"] or 0) for number in range(len(asked.sums))),
        greatest=found.get("greatest"),
    )
