"""StoreService: stores, depots, checkout mappings and products over gRPC."""

import json
from typing import Any

from till.v1 import store_pb2 as pb
from till.v1.store_pb2_grpc import StoreServiceServicer

from server import call, mapping, wire
from storage import revision, store
from storage.engine import Engine
from storage.tables import Product, ProductOption, Store


class StoreServicer(StoreServiceServicer):
    """Translates between messages and what orders refer to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def CreateStore(self, request: pb.CreateStoreRequest, context: Any) -> pb.Store:
        """Registers a store."""
        tenant, asked = call.current().tenant, request.store
        return _store(
            *await self._engine.write(
                lambda: store.create(tenant, asked.store_id, asked.display_name)
            )
        )

    async def GetStore(self, request: pb.GetStoreRequest, context: Any) -> pb.Store:
        """Returns a store."""
        tenant = call.current().tenant
        return _store(*await self._engine.read(lambda: store.get(tenant, request.store_id)))

    async def ListStores(
        self, request: pb.ListStoresRequest, context: Any
    ) -> pb.ListStoresResponse:
        """Returns a page of stores."""
        tenant, size = call.current().tenant, request.page_size or wire.PAGE_SIZE
        after = wire.page_position(request.page_token, str) or ""
        rows = await self._engine.scan(lambda: store.list_page(tenant, after, size + 1))
        more = wire.page_token(rows[size - 1][0].store) if len(rows) > size else ""
        return pb.ListStoresResponse(
            stores=[_store(*row) for row in rows[:size]], next_page_token=more
        )

    async def CreateDepot(self, request: pb.CreateDepotRequest, context: Any) -> pb.Depot:
        """Registers a depot in a store."""
        tenant, name = call.current().tenant, request.depot.storage_name
        await self._engine.write(lambda: store.create_depot(tenant, request.store_id, name))
        return pb.Depot(store_id=request.store_id, storage_name=name)

    async def SetCheckoutMapping(
        self, request: pb.SetCheckoutMappingRequest, context: Any
    ) -> pb.Store:
        """Replaces a store's checkout mapping."""
        tenant, asked = call.current().tenant, dict(request.mapping)
        mapping.check_paths(asked)

        def replace() -> tuple[Store, list[str]]:
            revision.check_etag(request.etag, _store(*store.get(tenant, request.store_id)).etag)
            return store.set_mapping(tenant, request.store_id, asked)

        return _store(*await self._engine.write(replace))

    async def CreateProduct(self, request: pb.CreateProductRequest, context: Any) -> pb.Product:
        """Registers a product and its options."""
        tenant, asked = call.current().tenant, request.product

        def create() -> tuple[Product, list[ProductOption]]:
            product = Product(
                tenant=tenant,
                product_code=asked.product_code,
                product_id=asked.product_id,
                display_name=asked.display_name,
            )
            return store.create_product(
                product, [_new_option(tenant, option) for option in asked.options]
            )

        return _product(*await self._engine.write(create))

    async def GetProduct(self, request: pb.GetProductRequest, context: Any) -> pb.Product:
        """Returns a product."""
        tenant, code = call.current().tenant, request.product_code.lower()
        return _product(*await self._engine.read(lambda: store.get_product(tenant, code)))


def _store(row: Store, depots: list[str]) -> pb.Store:
    found = pb.Store(
        store_id=row.store,
        display_name=row.display_name,
        depots=depots,
        checkout_mapping=json.loads(row.checkout_mapping),
        create_time=wire.timestamp(row.create_ms),
    )
    found.etag = wire.content_etag(found)
    return found


def _new_option(tenant: int, asked: pb.ProductOption) -> ProductOption:
    return ProductOption(
        tenant=tenant,
        option_code=asked.option_code,
        option_id=asked.option_id,
        sku=asked.sku or None,
        price_option_id=asked.price_option_id or None,
    )


def _product(row: Product, options: list[ProductOption]) -> pb.Product:
    found = pb.Product(
        product_code=row.product_code,
        product_id=row.product_id,
        display_name=row.display_name,
        options=[
            pb.ProductOption(
                option_code=option.option_code,
                option_id=option.option_id,
                sku=option.sku or "",
                price_option_id=option.price_option_id or 0,
            )
            for option in options
        ],
    )
    found.etag = wire.content_etag(found)
    return found
