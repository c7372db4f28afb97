"""How the shop, the app and its own things (bulk operations, webhook subscriptions) are read and changed."""

from sandbox.context import JSON, Context
from sandbox.model import BulkOperation
from sandbox.resolve import Read, Table, always, attr, gid, key, many, moment, number, read

_API_VERSIONS = ("2026-01", "2026-04", "2026-07", "2026-10")


def _file_size(operation: BulkOperation) -> str | None:
    return None if operation.file_size is None else str(operation.file_size)


def _run_query(args: JSON, context: Context) -> Read:
    return lambda _: context.live.bulk.run(args["query"], grouped=args["groupObjects"], context=context)


def _cancel(args: JSON, context: Context) -> Read:
    return lambda _: context.live.bulk.cancel(args["id"])


def _subscribe(args: JSON, context: Context) -> Read:
    return lambda _: context.live.webhooks.create(
        args["topic"], args["webhookSubscription"], context.api_version
    )


def _resubscribe(args: JSON, context: Context) -> Read:
    return lambda _: context.live.webhooks.update(args["id"], args["webhookSubscription"])


def _unsubscribe(args: JSON, context: Context) -> Read:
    return lambda _: context.live.webhooks.delete(args["id"])


MUTATION: Table = {
    "bulkOperationCancel": _cancel,
    "bulkOperationRunQuery": _run_query,
    "webhookSubscriptionCreate": _subscribe,
    "webhookSubscriptionDelete": _unsubscribe,
    "webhookSubscriptionUpdate": _resubscribe,
}
_ERRORS: Table = {"field": key("field"), "message": key("message")}
_SUBSCRIBED: Table = {"userErrors": key("userErrors"), "webhookSubscription": key("webhookSubscription")}
_OPERATED: Table = {"bulkOperation": key("bulkOperation"), "userErrors": key("userErrors")}

APP: dict[str, Table] = {
    "AccessScope": {
        "description": read(lambda scope: scope.replace("_", " ").capitalize()),
        "handle": read(str),
    },
    "ApiVersion": {
        "displayName": read(str),
        "handle": read(str),
        "supported": read(lambda v: v in _API_VERSIONS),
    },
    "AppInstallation": {
        "accessScopes": lambda _args, context: lambda _: list(context.scopes),
        "id": always("gid://shopify/AppInstallation/7012345"),
    },
    "BulkOperation": {
        "completedAt": moment("completed_at"),
        "createdAt": moment("created_at"),
        "errorCode": attr("error_code"),
        "fileSize": read(_file_size),
        "id": gid("BulkOperation"),
        "objectCount": number("object_count"),
        "partialDataUrl": attr("partial_url"),
        "query": attr("query"),
        "rootObjectCount": number("root_count"),
        "status": attr("status"),
        "type": always("QUERY"),
        "url": attr("url"),
    },
    "BulkOperationCancelPayload": _OPERATED,
    "BulkOperationRunQueryPayload": _OPERATED,
    "BulkOperationUserError": {"code": key("code"), **_ERRORS},
    "Count": {"count": read(lambda pair: pair[0]), "precision": read(lambda pair: pair[1])},
    "Shop": {
        "contactEmail": attr("email"),
        "createdAt": moment("created_at"),
        "currencyCode": attr("currency"),
        "email": attr("email"),
        "enabledPresentmentCurrencies": read(lambda store: [store.currency]),
        "ianaTimezone": attr("zone"),
        "id": gid("Shop", "shop_id"),
        "myshopifyDomain": attr("shop"),
        "name": attr("name"),
        "plan": read(lambda store: store),
        "setupRequired": always(False),
        "taxesIncluded": always(False),
        "url": read(lambda store: f"https://{store.shop}"),
    },
    "ShopPlan": {
        "displayName": always("Basic"),
        "partnerDevelopment": always(True),
        "publicDisplayName": always("Basic"),
        "shopifyPlus": always(False),
    },
    "UserError": _ERRORS,
    "WebhookSubscription": {
        "apiVersion": attr("api_version"),
        "callbackUrl": attr("uri"),
        "createdAt": moment("created_at"),
        "filter": attr("filter"),
        "format": attr("format"),
        "id": gid("WebhookSubscription"),
        "includeFields": many("include_fields"),
        "legacyResourceId": number("id"),
        "metafieldNamespaces": many("metafield_namespaces"),
        "name": attr("name"),
        "topic": attr("topic"),
        "updatedAt": moment("updated_at"),
        "uri": attr("uri"),
    },
    "WebhookSubscriptionCreatePayload": _SUBSCRIBED,
    "WebhookSubscriptionDeletePayload": {
        "deletedWebhookSubscriptionId": key("deletedWebhookSubscriptionId"),
        "userErrors": key("userErrors"),
    },
    "WebhookSubscriptionUpdatePayload": _SUBSCRIBED,
}
