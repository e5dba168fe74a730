#!/usr/bin/env bash
# Authlib 1.9.10 with joserfc 1.8.0: the validator of RFC 9068 access tokens accepts no token signed with EdDSA.
#
# RFC 9068, 2.1: any asymmetric algorithm may sign an access token. Authlib's JWTBearerTokenValidator decodes with
# joserfc and names no algorithm, and joserfc's default list contains none of Ed25519's. The token below has every claim
# that RFC 9068 requires and a key that verifies it; the result is invalid_token, as for a forged one. The same token with
# ES256 is accepted.
#
# Seen: ES256 taken, EdDSA InvalidTokenError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check authlib==1.9.10 joserfc==1.8.0 cryptography==46.0.3 requests==2.32.5 2>/dev/null
"$folder/venv/bin/python" - <<'P' 2>/dev/null | tee "$folder/seen"
import time
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey

def seen(key, algorithm):
    now = int(time.time())
    claims = {"iss": "https://issuer.example", "aud": "telemetry", "sub": "u1", "client_id": "c1", "iat": now,
              "exp": now + 60, "jti": "j1"}
    token = jwt.encode({"alg": algorithm, "typ": "at+jwt", "kid": key.kid}, claims, key, algorithms=[algorithm])

    class Validator(JWTBearerTokenValidator):
        def get_jwks(self):
            return KeySet([key]).as_dict(private=False)

    try:
        found = Validator("https://issuer.example", "telemetry").authenticate_token(token)
    except Exception as error:
        return type(error).__name__
    return "taken" if found else "refused"

for algorithm, key in {"ES256": ECKey.generate_key("P-256", {"kid": "k1"}), "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "k2"})}.items():
    print(algorithm, seen(key, algorithm))
P
diff "$folder/seen" - <<'S'
ES256 taken
EdDSA InvalidTokenError
S
