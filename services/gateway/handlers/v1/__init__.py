"""REST v1: thin handlers, a class for each kind of thing.

Each handler declares what it takes and gives, with `shared.http.operation.operation` above it and
a docstring below (first line: what it does, for readers of the API). From that, openapi.json and
the pages at /api/v1/docs are made; tests hold that no route is without. For example:

    @operation(path=JobPath, gives={200: JobView}, problems=(NotFoundError,), needs="identity")
    async def get_job(self, request: web.Request) -> web.Response:
        \"\"\"One job, and where each of its nodes is.\"\"\"

A route that only Dray itself uses is declared as such: `@internal`.
"""
