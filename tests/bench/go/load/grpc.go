package main

import (
	"context"
	"log"
	"time"

	"github.com/golang/protobuf/ptypes/wrappers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	pb "till"
)

// patience is the deadline of a call.
const patience = 15 * time.Second

type grpcClient struct {
	orders  pb.OrderServiceClient
	drafts  pb.DraftItemServiceClient
	headers []string
}

func dialGRPC(target string, headers map[string]string) client {
	wait, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connection, err := grpc.DialContext(wait, target, grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		log.Fatal(target, ": ", err)
	}
	c := &grpcClient{orders: pb.NewOrderServiceClient(connection), drafts: pb.NewDraftItemServiceClient(connection)}
	for name, value := range headers {
		c.headers = append(c.headers, name, value)
	}
	return c
}

func (c *grpcClient) send(a *ask) (bool, error) {
	limited, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pairs := append(c.headers[:len(c.headers):len(c.headers)], "idempotency-key", a.key)
	ctx := metadata.NewOutgoingContext(limited, metadata.Pairs(pairs...))
	var head metadata.MD
	err := c.call(ctx, a, grpc.Header(&head))
	return len(head.Get("idempotent-replayed")) > 0, err
}

func (c *grpcClient) call(ctx context.Context, a *ask, head grpc.CallOption) (err error) {
	switch a.kind {
	case "create":
		_, err = c.orders.SubmitStoreOrder(ctx, &pb.SubmitStoreOrderRequest{
			StoreId: a.store, OrderId: a.number, UserId: a.user,
			Total: &pb.SubmitStoreOrderRequest_GrandTotal{GrandTotal: a.total()},
		}, head)
	case "recent":
		_, err = c.orders.ListRecentUserOrders(ctx, &pb.ListRecentUserOrdersRequest{UserId: a.user, StoreId: a.store}, head)
	case "accept":
		_, err = c.drafts.SubmitDraftItem(ctx, draftItem(a), head)
	default:
		_, err = c.orders.CreateOrder(ctx, order(a), head)
	}
	return err
}

func order(a *ask) *pb.CreateOrderRequest {
	request := &pb.CreateOrderRequest{
		RequesterId: 1001, UserId: a.userID, FacilityId: 7, ShippingAddressId: 301, BillingAddressId: 302,
		ShippingMethod: "GROUND",
	}
	for _, row := range a.rows {
		request.QuoteItems = append(request.QuoteItems, &pb.QuoteItem{
			Quantity: 1, Price: a.total(), OptionCode: optionCode(row), Date: "2030-01-01",
		})
	}
	return request
}

func draftItem(a *ask) *pb.SubmitDraftItemRequest {
	return &pb.SubmitDraftItemRequest{
		CheckoutDraftItemId: "item-" + a.number, CheckoutDraftId: "draft-" + a.number, EntityNumber: "1001",
		LineNumber: &wrappers.Int32Value{Value: 1}, ProductNumber: "PRO-1001-0001", Sku: "PH-SPECIA-10010001",
		ProductName: "Pandan Coconut Sea Salt Latte", Units: &pb.SubmitDraftItemRequest_Quantity{Quantity: 15},
		UnitPrice: &wrappers.DoubleValue{Value: 158}, LineTotal: &wrappers.DoubleValue{Value: a.total()},
		IsActive: &wrappers.BoolValue{Value: true}, CreatedAt: "2026-05-04T09:07:00+08:00",
		UpdatedAt: "2026-05-04T09:07:00+08:00", IdempotencyKey: a.key,
	}
}
