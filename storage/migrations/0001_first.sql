CREATE TABLE `tenants` (
  `tenant` INTEGER NOT NULL PRIMARY KEY,
  `name` VARCHAR(255) NOT NULL,
  `entity_number` VARCHAR(255) NOT NULL,
  `stock_policy` VARCHAR(32) NOT NULL CHECK (stock_policy = 'TRACK_WHEN_MATCHED' OR stock_policy = 'REQUIRE_MATCH'),
  `create_ms` BIGINT NOT NULL
);
CREATE UNIQUE INDEX `tenant_name` ON `tenants` (`name`);
CREATE TABLE `api_clients` (
  `tenant` INTEGER NOT NULL,
  `client_id` VARCHAR(128) NOT NULL,
  `display_name` VARCHAR(255) NOT NULL,
  `scopes` VARCHAR(255) NOT NULL,
  `default_store` VARCHAR(255) NOT NULL,
  `channel_code` VARCHAR(64) NOT NULL,
  `create_ms` BIGINT NOT NULL,
  `revoke_ms` BIGINT,
  PRIMARY KEY (`tenant`, `client_id`)
) WITHOUT ROWID;
CREATE UNIQUE INDEX `apiclient_client_id` ON `api_clients` (`client_id`);
CREATE TABLE `api_keys` (
  `tenant` INTEGER NOT NULL,
  `key_id` CHAR(16) NOT NULL,
  `client_id` VARCHAR(128) NOT NULL,
  `secret_hash` LONGBLOB NOT NULL,
  `create_ms` BIGINT NOT NULL,
  `revoke_ms` BIGINT,
  PRIMARY KEY (`tenant`, `client_id`, `key_id`)
) WITHOUT ROWID;
CREATE UNIQUE INDEX `apikey_key_id` ON `api_keys` (`key_id`);
CREATE TABLE `stores` (
  `tenant` INTEGER NOT NULL,
  `store` VARCHAR(255) NOT NULL,
  `display_name` VARCHAR(255) NOT NULL,
  `checkout_mapping` LONGTEXT NOT NULL,
  `create_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `store`)
) WITHOUT ROWID;
CREATE TABLE `depots` (
  `tenant` INTEGER NOT NULL,
  `store` VARCHAR(255) NOT NULL,
  `name` VARCHAR(255) NOT NULL,
  PRIMARY KEY (`tenant`, `store`, `name`)
) WITHOUT ROWID;
CREATE TABLE `products` (
  `tenant` INTEGER NOT NULL,
  `product_code` CHAR(36) NOT NULL,
  `product_id` BIGINT NOT NULL,
  `display_name` VARCHAR(255) NOT NULL,
  PRIMARY KEY (`tenant`, `product_code`)
) WITHOUT ROWID;
CREATE UNIQUE INDEX `product_tenant_product_id` ON `products` (`tenant`, `product_id`);
CREATE TABLE `product_options` (
  `tenant` INTEGER NOT NULL,
  `option_code` CHAR(36) NOT NULL,
  `option_id` BIGINT NOT NULL,
  `product_code` CHAR(36) NOT NULL,
  `sku` VARCHAR(255),
  `price_option_id` BIGINT,
  PRIMARY KEY (`tenant`, `product_code`, `option_code`)
) WITHOUT ROWID;
CREATE UNIQUE INDEX `productoption_tenant_option_code` ON `product_options` (`tenant`, `option_code`);
CREATE UNIQUE INDEX `productoption_tenant_option_id` ON `product_options` (`tenant`, `option_id`);
CREATE UNIQUE INDEX `productoption_tenant_sku` ON `product_options` (`tenant`, `sku`);
CREATE UNIQUE INDEX `productoption_tenant_price_option_id` ON `product_options` (`tenant`, `price_option_id`);
CREATE TABLE `inventory` (
  `inventory_id` BIGINT NOT NULL PRIMARY KEY,
  `tenant` INTEGER NOT NULL,
  `inventory_code` CHAR(36) NOT NULL,
  `option_code` CHAR(36) NOT NULL,
  `date` CHAR(10) NOT NULL,
  `max_quantity` INTEGER NOT NULL,
  `ordered` INTEGER NOT NULL,
  `held` INTEGER NOT NULL,
  `revision` INTEGER NOT NULL,
  CHECK (ordered >= 0),
  CHECK (held >= 0),
  CHECK (ordered + held <= max_quantity)
);
CREATE UNIQUE INDEX `inventory_tenant_option_code_date` ON `inventory` (`tenant`, `option_code`, `date`);
CREATE UNIQUE INDEX `inventory_tenant_inventory_code` ON `inventory` (`tenant`, `inventory_code`);
CREATE TABLE `inventory_ledger` (
  `entry_id` BIGINT NOT NULL PRIMARY KEY,
  `tenant` INTEGER NOT NULL,
  `inventory_id` BIGINT NOT NULL,
  `counter` VARCHAR(8) NOT NULL CHECK (counter = 'max' OR counter = 'ordered' OR counter = 'held'),
  `before` INTEGER NOT NULL,
  `delta` INTEGER NOT NULL,
  `after` INTEGER NOT NULL,
  `actor` VARCHAR(128) NOT NULL,
  `source` VARCHAR(255) NOT NULL,
  `reason` VARCHAR(255) NOT NULL,
  `create_ms` BIGINT NOT NULL,
  CHECK (`before` + delta = `after`)
);
CREATE INDEX `inventoryledger_tenant_inventory_id_entry_id` ON `inventory_ledger` (`tenant`, `inventory_id`, `entry_id`);
CREATE TABLE `holds` (
  `tenant` INTEGER NOT NULL,
  `hold_id` CHAR(32) NOT NULL,
  `state` VARCHAR(9) NOT NULL CHECK (state = 'ACTIVE' OR state = 'CONFIRMED' OR state = 'RELEASED' OR state = 'EXPIRED'),
  `expire_ms` BIGINT NOT NULL,
  `client` VARCHAR(128) NOT NULL,
  `revision` INTEGER NOT NULL,
  `create_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `hold_id`)
) WITHOUT ROWID;
CREATE TABLE `hold_lines` (
  `tenant` INTEGER NOT NULL,
  `hold_id` CHAR(32) NOT NULL,
  `inventory_id` BIGINT NOT NULL,
  `quantity` INTEGER NOT NULL CHECK (quantity >= 1),
  `active` SMALLINT NOT NULL,
  `expire_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `hold_id`, `inventory_id`)
) WITHOUT ROWID;
CREATE INDEX `holdline_tenant_inventory_id_active_expire_ms` ON `hold_lines` (`tenant`, `inventory_id`, `active`, `expire_ms`);
CREATE INDEX `holdline_active_expire_ms` ON `hold_lines` (`active`, `expire_ms`);
CREATE TABLE `drafts` (
  `tenant` INTEGER NOT NULL,
  `draft` VARCHAR(255) NOT NULL,
  `display_name` VARCHAR(255) NOT NULL,
  `order_id` BIGINT,
  `delete_ms` BIGINT,
  `item_changes` INTEGER NOT NULL,
  `revision` INTEGER NOT NULL,
  `create_ms` BIGINT NOT NULL,
  `update_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `draft`),
  CHECK (order_id IS NULL OR delete_ms IS NULL)
) WITHOUT ROWID;
CREATE TABLE `draft_items` (
  `tenant` INTEGER NOT NULL,
  `item` VARCHAR(255) NOT NULL,
  `draft` VARCHAR(255) NOT NULL,
  `entity_number` VARCHAR(255) NOT NULL,
  `line_number` INTEGER,
  `product_number` VARCHAR(255) NOT NULL,
  `sku` VARCHAR(255) NOT NULL,
  `product_name` VARCHAR(1000) NOT NULL,
  `quantity` INTEGER NOT NULL CHECK (quantity >= 0),
  `unit_price` BIGINT,
  `line_total` BIGINT,
  `is_active` SMALLINT NOT NULL,
  `is_deleted` SMALLINT NOT NULL,
  `deleted_at` VARCHAR(255) NOT NULL,
  `created_at` VARCHAR(255) NOT NULL,
  `updated_at` VARCHAR(255) NOT NULL,
  `idempotency_key` VARCHAR(255) NOT NULL,
  `schema_version` BIGINT,
  `version` BIGINT,
  `revision` INTEGER NOT NULL,
  `create_ms` BIGINT NOT NULL,
  `update_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `item`)
);
CREATE INDEX `draftitem_tenant_draft` ON `draft_items` (`tenant`, `draft`);
/*! ALTER TABLE `draft_items` DROP PRIMARY KEY, ADD PRIMARY KEY (`tenant`, `draft`, `item`), ADD UNIQUE INDEX `draftitem_tenant_item` (`tenant`, `item`), DROP INDEX `draftitem_tenant_draft` */;
CREATE TABLE `orders` (
  `tenant` INTEGER NOT NULL,
  `order_id` BIGINT NOT NULL,
  `store` VARCHAR(255) NOT NULL,
  `order_number` VARCHAR(255) NOT NULL,
  `status` VARCHAR(16) NOT NULL CHECK (status = 'NEW' OR status = 'CONFIRMED' OR status = 'PICKING' OR status = 'PACKED' OR status = 'SHIPPED' OR status = 'DELIVERED' OR status = 'CANCELLED'),
  `customer` VARCHAR(255) NOT NULL,
  `customer_ms` BIGINT NOT NULL,
  `requester_id` INTEGER,
  `user_id` INTEGER,
  `facility_id` INTEGER,
  `shipping_address_id` INTEGER,
  `billing_address_id` INTEGER,
  `shipping_method` VARCHAR(255),
  `use_shipping_account` SMALLINT,
  `notes` VARCHAR(200),
  `draft` VARCHAR(255),
  `client` VARCHAR(128) NOT NULL,
  `grand_total` BIGINT NOT NULL CHECK (grand_total >= 0),
  `item_changes` INTEGER NOT NULL,
  `revision` INTEGER NOT NULL,
  `create_ms` BIGINT NOT NULL,
  `update_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `store`, `customer`, `customer_ms`)
) WITHOUT ROWID;
CREATE UNIQUE INDEX `order_tenant_order_id` ON `orders` (`tenant`, `order_id`);
CREATE UNIQUE INDEX `order_tenant_store_order_number` ON `orders` (`tenant`, `store`, `order_number`);
CREATE TABLE `order_items` (
  `tenant` INTEGER NOT NULL,
  `order_id` BIGINT NOT NULL,
  `order_item_id` VARCHAR(255) NOT NULL,
  `position` SMALLINT NOT NULL,
  `quantity` INTEGER NOT NULL CHECK (quantity >= 1),
  `price` BIGINT NOT NULL,
  `total` BIGINT NOT NULL,
  `price_option_id` BIGINT NOT NULL,
  `product_id` BIGINT NOT NULL,
  `sku` VARCHAR(255),
  `option_code` CHAR(36),
  `date` CHAR(10),
  `inventory_id` BIGINT,
  `depot` VARCHAR(255),
  `type` VARCHAR(8) NOT NULL CHECK (type = 'comum' OR type = 'expresso'),
  `wave_id` BIGINT,
  PRIMARY KEY (`tenant`, `order_id`, `order_item_id`)
) WITHOUT ROWID;
CREATE TABLE `order_statuses` (
  `tenant` INTEGER NOT NULL,
  `order_id` BIGINT NOT NULL,
  `change_id` BIGINT NOT NULL,
  `status` VARCHAR(16) NOT NULL CHECK (status = 'NEW' OR status = 'CONFIRMED' OR status = 'PICKING' OR status = 'PACKED' OR status = 'SHIPPED' OR status = 'DELIVERED' OR status = 'CANCELLED'),
  `actor` VARCHAR(128) NOT NULL,
  `reason` VARCHAR(255) NOT NULL,
  `create_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `order_id`, `change_id`)
) WITHOUT ROWID;
CREATE TABLE `waves` (
  `wave_id` BIGINT NOT NULL PRIMARY KEY,
  `tenant` INTEGER NOT NULL,
  `store` VARCHAR(255) NOT NULL,
  `type` VARCHAR(8) NOT NULL CHECK (type = 'comum' OR type = 'expresso'),
  `completed_ms` BIGINT NOT NULL
);
CREATE TABLE `order_storings` (
  `tenant` INTEGER NOT NULL,
  `order_id` BIGINT NOT NULL,
  `wave_id` BIGINT NOT NULL,
  `completed_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `order_id`, `wave_id`)
) WITHOUT ROWID;
CREATE TABLE `checkouts` (
  `tenant` INTEGER NOT NULL,
  `external_number` VARCHAR(255) NOT NULL,
  `store` VARCHAR(255) NOT NULL,
  `revision` INTEGER NOT NULL,
  `create_ms` BIGINT NOT NULL,
  `update_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `external_number`)
) WITHOUT ROWID;
CREATE INDEX `checkout_tenant_store_external_number` ON `checkouts` (`tenant`, `store`, `external_number`);
CREATE TABLE `checkout_items` (
  `tenant` INTEGER NOT NULL,
  `external_number` VARCHAR(255) NOT NULL,
  `item_number` VARCHAR(255) NOT NULL,
  `position` INTEGER NOT NULL,
  `order_id` BIGINT NOT NULL,
  `order_item_id` VARCHAR(255) NOT NULL,
  PRIMARY KEY (`tenant`, `external_number`, `item_number`)
) WITHOUT ROWID;
CREATE INDEX `checkoutitem_tenant_order_id_order_item_id` ON `checkout_items` (`tenant`, `order_id`, `order_item_id`);
CREATE TABLE `protocols` (
  `tenant` INTEGER NOT NULL,
  `protocol` CHAR(32) NOT NULL,
  `accepted` SMALLINT NOT NULL,
  `request` LONGTEXT NOT NULL,
  `faults` LONGTEXT NOT NULL,
  `create_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `protocol`)
);
CREATE TABLE `idempotency_keys` (
  `tenant` INTEGER NOT NULL,
  `client` VARCHAR(255) NOT NULL,
  `rpc` VARCHAR(64) NOT NULL,
  `key` VARCHAR(255) NOT NULL,
  `fingerprint` LONGBLOB NOT NULL,
  `answer` LONGBLOB NOT NULL,
  `create_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `client`, `rpc`, `key`)
);
CREATE INDEX `idempotencykey_create_ms` ON `idempotency_keys` (`create_ms`);
CREATE TABLE `operations` (
  `tenant` INTEGER NOT NULL,
  `operation` CHAR(32) NOT NULL,
  `state` VARCHAR(9) NOT NULL CHECK (state = 'PENDING' OR state = 'RUNNING' OR state = 'SUCCEEDED' OR state = 'FAILED'),
  `draft` VARCHAR(255) NOT NULL,
  `item` VARCHAR(255) NOT NULL,
  `reason` VARCHAR(64),
  `error` VARCHAR(1000),
  `create_ms` BIGINT NOT NULL,
  `update_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `operation`)
) WITHOUT ROWID;
CREATE TABLE `promises` (
  `tenant` INTEGER NOT NULL,
  `operation` CHAR(32) NOT NULL,
  `draft` VARCHAR(255) NOT NULL,
  `request` LONGTEXT NOT NULL,
  PRIMARY KEY (`tenant`, `operation`)
) WITHOUT ROWID;
CREATE INDEX `promise_tenant_draft` ON `promises` (`tenant`, `draft`);
CREATE TABLE `events` (
  `tenant` INTEGER NOT NULL,
  `seq` BIGINT NOT NULL,
  `kind` VARCHAR(64) NOT NULL,
  `subject` VARCHAR(255) NOT NULL,
  `data` LONGTEXT NOT NULL,
  `create_ms` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`, `seq`)
) WITHOUT ROWID;
CREATE TABLE `event_tips` (
  `tenant` INTEGER NOT NULL,
  `seq` BIGINT NOT NULL,
  PRIMARY KEY (`tenant`)
) WITHOUT ROWID;
