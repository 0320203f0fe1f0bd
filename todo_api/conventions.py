"""What holds for every route alike."""

from falcon import HTTP_204, Request, Response

from todo_api.problems import NOT_FOUND, Problem


class StrictPaths:
    """One path a resource: no empty segments and no slash at the end, which Falcon would take for an empty id."""

    def process_request(self, req: Request, _resp: Response) -> None:
        if "//" in req.path or (req.path.endswith("/") and req.path != "/"):
            raise Problem(NOT_FOUND, "paths here have no empty segment and no slash at the end")


class OptionsWithoutContent:
    """OPTIONS is answered 204 with all of ``Allow``; Falcon's own answer is 200 and leaves OPTIONS itself out."""

    def process_response(self, req: Request, resp: Response, _resource: object, succeeded: bool) -> None:
        if req.method == "OPTIONS" and succeeded:
            resp.status = HTTP_204
            resp.set_header("Allow", ", ".join(filter(None, [resp.get_header("Allow"), "OPTIONS"])))
            # RFC 9110 section 8.6: a 204 has none.
            resp.delete_header("Content-Length")
