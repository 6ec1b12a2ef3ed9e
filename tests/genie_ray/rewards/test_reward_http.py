"""The service over real HTTP: it gives the same answers as by handle, and explains what it refuses."""

import numpy as np
import pytest
import requests

from genie_ray.rewards.http import wire
from tests.genie_ray.rewards.small_world import SIZES, TOKEN, assert_rewards, fragments
from world_model.checkpoint import weights_hash
from world_model.genie import GenieReduxG


def test_over_http_it_answers_as_by_handle(url: str, models: list[GenieReduxG]) -> None:
    frames, actions = fragments(9, 2, 4)
    body = wire.pack_question(wire.Question(frames=frames, actions=actions, episodes=["a", "b", "c"]))
    header = {"Authorization": f"Bearer {TOKEN}"}
    response = requests.post(f"{url}/v1/rewards", body, params={"maps": "true"}, headers=header, timeout=30)
    assert response.status_code == 200
    answer = wire.unpack_answer(response.content, max_bytes=1_000_000)
    assert_rewards(answer.rewards, models[0], frames, actions)
    assert answer.version == weights_hash(models[0])
    assert answer.statistics["entropy_top"][0].shape == (9,)
    assert answer.maps is not None
    assert answer.maps[2].shape == (4, 2, 2)
    served = requests.get(f"{url}/v1/service", headers=header, timeout=30).json()
    assert {name: served[name] for name in SIZES} == SIZES
    assert requests.get(f"{url}/v1/stats", headers=header, timeout=30).json()["windows"] >= 7
    described = requests.get(f"{url}/openapi.json", timeout=30).json()
    assert {"/v1/rewards", "/v1/service", "/v1/stats"} <= described["paths"].keys()
    assert "frames_0   uint8" in described["info"]["description"]


@pytest.mark.parametrize(
    ("body", "token", "status", "reason"),
    [
        (b"", None, 401, "missing or wrong token"),
        (b"", "another token here", 401, "missing or wrong token"),
        (b"", "ein anderer Schlüssel", 401, "missing or wrong token"),
        (b"no archive", TOKEN, 400, "not an .npz file"),
        (wire._pack({"frames_0": np.zeros(3)}), TOKEN, 400, "allowed: frames_0, actions_0"),
        (bytes(2 * 1024**2), TOKEN, 413, "more than 1 MB"),
        (
            wire.pack_question(wire.Question(frames=[np.zeros((6, 8, 8, 3))], actions=[np.zeros(5)], episodes=None)),
            TOKEN,
            400,
            "fragment 0: actions have shape [5] and type float64; allowed: [n], integers",
        ),
    ],
)
def test_over_http_what_cannot_be_answered_is_refused(
    url: str, body: bytes, token: str | None, status: int, reason: str
) -> None:
    header = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = requests.post(f"{url}/v1/rewards", body, headers=header, timeout=30)
    assert response.status_code == status
    assert reason in response.json()["detail"]
    assert "RayTaskError" not in response.text


def test_over_http_an_id_is_one_questions(url: str) -> None:
    def ask(length: int) -> requests.Response:
        frames, actions = fragments(length)
        body = wire.pack_question(wire.Question(frames=frames, actions=actions, episodes=None))
        header = {"Authorization": f"Bearer {TOKEN}"}
        return requests.post(f"{url}/v1/rewards", body, params={"request_id": "one"}, headers=header, timeout=30)

    assert ask(5).content == ask(5).content
    assert ask(6).status_code == 400
    assert ask(6).json()["detail"] == "request_id 'one' was used by another request; allowed: a fresh UUID for each"
