"""Cloud KMS over gRPC on this machine, for Google's own client: its protocol and sums, our key.

It proves that what we send and read is what the service's published interface says. It does not prove
Google's own checks of rights, quotas and states: those are its answers, which a test chooses.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google_crc32c
import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

SERVICE = "google.cloud.kms.v1.KeyManagementService"


class CloudKms:
    """One server; a key exists once it is named. ``answer`` is a status that every call gets instead."""

    def __init__(self) -> None:
        self._keys: dict[str, AESGCM] = {}
        self.answer: grpc.StatusCode | None = None
        self.corrupt = False
        self.state = "ENABLED"
        self.pause_seconds = 0.0
        self.calls = 0
        self._server = grpc.server(ThreadPoolExecutor(4))
        methods = {
            "Encrypt": grpc.unary_unary_rpc_method_handler(
                self._encrypt, kms_v1.EncryptRequest.deserialize, kms_v1.EncryptResponse.serialize
            ),
            "Decrypt": grpc.unary_unary_rpc_method_handler(
                self._decrypt, kms_v1.DecryptRequest.deserialize, kms_v1.DecryptResponse.serialize
            ),
            "GetCryptoKey": grpc.unary_unary_rpc_method_handler(
                self._describe, kms_v1.GetCryptoKeyRequest.deserialize, kms_v1.CryptoKey.serialize
            ),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def client(self) -> kms_v1.KeyManagementServiceClient:
        """Google's client, connected here."""
        transport = KeyManagementServiceGrpcTransport(channel=self._channel)
        return kms_v1.KeyManagementServiceClient(transport=transport)

    def stop(self) -> None:
        """Stop answering."""
        self._channel.close()
        self._server.stop(None)

    def _before(self, context: grpc.ServicerContext) -> None:
        self.calls += 1
        time.sleep(self.pause_seconds)
        if self.answer is not None:
            context.abort(self.answer, "as the test wants it")

    def _describe(self, request: Any, context: grpc.ServicerContext) -> kms_v1.CryptoKey:
        self._before(context)
        if request.name not in self._keys:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
        primary = kms_v1.CryptoKeyVersion(state=self.state)
        return kms_v1.CryptoKey(name=request.name, primary=primary)

    def _encrypt(self, request: Any, context: grpc.ServicerContext) -> kms_v1.EncryptResponse:
        self._before(context)
        key = self._keys.setdefault(request.name, AESGCM(os.urandom(32)))
        nonce = os.urandom(12)
        sealed = nonce + key.encrypt(nonce, request.plaintext, request.additional_authenticated_data)
        sums = (
            google_crc32c.value(request.plaintext),
            google_crc32c.value(request.additional_authenticated_data),
        )
        return kms_v1.EncryptResponse(
            name=f"{request.name}/cryptoKeyVersions/1",
            ciphertext=sealed,
            ciphertext_crc32c=google_crc32c.value(sealed) ^ self.corrupt,
            verified_plaintext_crc32c=request.plaintext_crc32c == sums[0],
            verified_additional_authenticated_data_crc32c=request.additional_authenticated_data_crc32c
            == sums[1],
        )

    def _decrypt(self, request: Any, context: grpc.ServicerContext) -> kms_v1.DecryptResponse:
        self._before(context)
        if request.name not in self._keys:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such key")
        sealed = request.ciphertext
        try:
            plaintext = self._keys[request.name].decrypt(
                sealed[:12], sealed[12:], request.additional_authenticated_data
            )
        except InvalidTag:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed")
            raise
        return kms_v1.DecryptResponse(
            plaintext=plaintext, plaintext_crc32c=google_crc32c.value(plaintext) ^ self.corrupt
        )
