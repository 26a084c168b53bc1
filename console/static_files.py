"""Static files in answers of one piece: an asynchronous server warns of files that it must read."""

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from whitenoise.middleware import WhiteNoiseMiddleware


class StaticFilesMiddleware(WhiteNoiseMiddleware):  # type: ignore[misc] # it has no types
    """WhiteNoise, whose file is read here, in the thread of the request.

    Django would read the streamed file whole all the same, on the event loop's time and with a
    warning for each. The largest of our files has some hundred kilobytes.
    """

    @staticmethod
    def serve(static_file: Any, request: HttpRequest) -> HttpResponse:
        """The file, a part of it, its headers alone, or that it has not changed."""
        answer = static_file.get_response(request.method, request.META)
        content = b""
        if answer.file is not None:
            with answer.file as file:
                content = file.read()
        response = HttpResponse(content, status=int(answer.status))
        del response["Content-Type"]
        for name, value in answer.headers:
            response[name] = value
        if answer.status == HTTPStatus.OK and content:
            # An update may have changed the file since its length was noted, at the start.
            response["Content-Length"] = str(len(content))
        return response
