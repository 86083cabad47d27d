"""What the SQLite catalog asks beyond one key: conditions, the newest records, totals."""

from shared.catalog.totals import Place, Total, Totals, Value, Wanted

Query = tuple[str, list[object]]

_NEWEST = """
    SELECT key, document FROM {table} WHERE {condition} ORDER BY {column} DESC, key DESC LIMIT ?"""
# Materialized, or the sorter would carry whole documents and take them apart again behind it.
_TOTALS = """
    WITH picked AS MATERIALIZED (SELECT {columns} FROM {table} WHERE {condition})
    SELECT {groups}, count(*), {greatest}{sums} FROM picked
    GROUP BY {groups} ORDER BY {order} LIMIT ? OFFSET ?"""


def column(field: str) -> str:
    """The expression that index and query must spell alike, or the index is not used.

    As text, since all that is searched for is text, and SQLite finds no number by its digits.
    """
    return f"CAST(json_extract(document, '$.{field}') AS TEXT)"


def condition(wanted: Wanted) -> tuple[str, list[object]]:
    terms = ["TRUE"]
    values: list[object] = []
    for field, options in wanted.items():
        texts = [option for option in options if option is not None]
        term = f"{column(field)} IN ({', '.join('?' * len(texts))})"
        if len(texts) < len(options):
            term = f"({term} OR {column(field)} IS NULL)" if texts else f"{column(field)} IS NULL"
        terms.append(term)
        values += texts
    return " AND ".join(terms), values


def newest_query(table: str, wanted: Wanted, field: str, beyond: Place | None, limit: int) -> Query:
    where, values = condition(wanted)
    if beyond is not None:
        # The first term is implied by the second, and is what bounds the search of the index.
        where += f" AND {column(field)} <= ? AND ({column(field)}, key) < (?, ?)"
        values += [beyond.value, beyond.value, beyond.key]
    return _NEWEST.format(table=table, condition=where, column=column(field)), [*values, limit]


def totals_query(table: str, asked: Totals) -> Query:
    where, values = condition(asked.where)
    if asked.between is not None:
        where += f" AND {column(asked.between.field)} >= ? AND {column(asked.between.field)} < ?"
        values += [asked.between.low, asked.between.high]
    if asked.either:
        either = [condition(each) for each in asked.either]
        where += f" AND ({' OR '.join(term for term, _ in either)})"
        values += [value for _, each in either for value in each]
    picked = dict.fromkeys((*asked.by, *asked.sums, asked.greatest or asked.by[0]))
    names = {field: f"f{number}" for number, field in enumerate(picked)}
    terms = {field: f"{column(field)} AS {name}" for field, name in names.items()}
    if asked.leading is not None:
        first = asked.by[0]
        terms[first] = f"substr({column(first)}, 1, {asked.leading:d}) AS {names[first]}"
    groups = ", ".join(names[field] for field in asked.by)
    sums = [f"sum(CAST({names[field]} AS INTEGER))" for field in asked.sums]
    greatest = "NULL" if asked.greatest is None else f"max({names[asked.greatest]})"
    statement = _TOTALS.format(
        table=table,
        columns=", ".join(terms.values()),
        condition=where,
        groups=groups,
        greatest=greatest,
        sums="".join(f", {each}" for each in sums),
        order=f"{' + '.join(sums)} DESC, {groups}" if asked.largest_first and sums else groups,
    )
    return statement, [*values, asked.limit, asked.offset]


def total_of(row: tuple[object, ...], asked: Totals) -> Total:
    depth = len(asked.by)
    count, greatest, *sums = row[depth:]
    return Total(
        by=tuple(map(_value, row[:depth])),
        count=_number(count),
        sums=tuple(map(_number, sums)),
        greatest=_value(greatest),
    )


def _value(found: object) -> Value:
    return None if found is None else str(found)


def _number(found: object) -> int:
    return int(str(found or 0))
