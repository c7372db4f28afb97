from urllib.parse import parse_qsl, urlsplit

from sandbox.oauth import sign_query

CLIENT = {"client_id": "sandbox-client-id", "client_secret": "sandbox-client-secret"}


async def code_for(sandbox, **extra):
    query = {
        "client_id": CLIENT["client_id"],
        "redirect_uri": "http://127.0.0.1:1/back",
        "state": "nonce",
        "scope": "read_orders,read_products",
    }
    return await sandbox.http.get(
        f"{sandbox.base}/{sandbox.shop}/admin/oauth/authorize", params={**query, **extra}
    )


async def token(sandbox, **form):
    answer = await sandbox.http.post(
        f"{sandbox.base}/{sandbox.shop}/admin/oauth/access_token", json={**CLIENT, **form}
    )
    return answer.status_code, answer.json()


async def works(sandbox, access):
    return (await sandbox.post("{ shop { name } }", token=access)).status_code == 200


def test_the_redirect_is_signed_as_documented():
    """The published test vector comes out."""
    pairs = {
        "code": "0907a61c0c8d55e99db179b68161bc00", "shop": "some-shop.myshopify.com",
        "state": "0.6784241404160823", "timestamp": "1337178173",
    }  # fmt: skip
    assert sign_query(pairs, "hush") == "700e2dadb827fcc8609e9d5ce208b2e9cdaab9df07390d2cbca10d7c328fc4bf"


async def test_consent_leads_to_a_code_that_works_once(sandbox):
    """The page asks; the redirect carries code, hmac, host, shop, state and timestamp; the code is good for one token."""  # noqa: E501
    page = await code_for(sandbox)
    assert page.status_code == 200
    assert "Install" in page.text
    answer = await code_for(sandbox, auto="1")
    pairs = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
    assert pairs.keys() == {"code", "hmac", "host", "shop", "state", "timestamp"}
    assert pairs["hmac"] == sign_query(pairs, CLIENT["client_secret"])
    status, granted = await token(sandbox, code=pairs["code"])
    assert (status, granted.keys(), granted["scope"]) == (
        200,
        {"access_token", "scope"},
        "read_orders,read_products",
    )
    assert await works(sandbox, granted["access_token"])
    status, refused = await token(sandbox, code=pairs["code"])
    assert (status, refused["error"]) == (400, "invalid_request")


async def test_an_old_refresh_token_lives_until_the_new_pair_is_used(sandbox):
    """A lost refresh answer can be asked for again; afterwards the old token is dead."""
    location = (await code_for(sandbox, auto="1")).headers["location"]
    _, first = await token(sandbox, code=dict(parse_qsl(urlsplit(location).query))["code"], expiring="1")
    assert (first["expires_in"], first["refresh_token_expires_in"]) == (3600, 7776000)
    status, lost = await token(sandbox, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert status == 200
    assert lost["refresh_token"] != first["refresh_token"]
    status, second = await token(sandbox, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert status == 200
    assert await works(sandbox, second["access_token"])
    status, refused = await token(sandbox, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert (status, refused["error"]) == (400, "invalid_grant")


async def test_client_credentials_give_a_days_token(sandbox):
    """Own-organisation apps need no browser; a wrong secret is refused."""
    status, granted = await token(sandbox, grant_type="client_credentials")
    assert (status, granted["expires_in"]) == (200, 86399)
    assert await works(sandbox, granted["access_token"])
    status, refused = await token(sandbox, grant_type="client_credentials", client_secret="wrong")
    assert (status, refused["error"]) == (400, "invalid_client")


async def test_a_lasting_token_can_be_exchanged_for_an_expiring_one(sandbox):
    """Token exchange retires the old token."""
    kind = "urn:shopify:params:oauth:token-type:offline-access-token"
    status, granted = await token(
        sandbox, grant_type="urn:ietf:params:oauth:grant-type:token-exchange", subject_token=sandbox.token,
        subject_token_type=kind, requested_token_type=kind, expiring="1",
    )  # fmt: skip
    assert status == 200
    assert await works(sandbox, granted["access_token"])
    assert not await works(sandbox, sandbox.token)


async def test_the_token_endpoint_has_the_shops_pace_its_faults_and_a_log(sandbox):
    """Tokens live as long as the shop says; the endpoint can be broken alone; its requests are on record."""
    await sandbox.control("PATCH", access_token_seconds=7)
    await sandbox.control("PATCH", "/faults", token_http={"status": 502, "times": 1})
    assert await works(sandbox, sandbox.token)
    location = (await code_for(sandbox, auto="1")).headers["location"]
    code = dict(parse_qsl(urlsplit(location).query))["code"]
    assert (await token(sandbox, code=code, expiring="1"))[0] == 502
    status, granted = await token(sandbox, code=code, expiring="1")
    assert (status, granted["expires_in"]) == (200, 7)
    log = await sandbox.control("GET", "/log")
    assert log["counters"]["tokens_asked"] == 2
    asked = [row["status"] for row in log["requests"] if row["operation"] == "token authorization_code"]
    assert asked == [502, 200]
