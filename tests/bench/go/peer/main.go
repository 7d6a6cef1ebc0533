// A Go gRPC server over the peers' tables: one commit a call, or with -group many calls a commit.
package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"time"

	_ "github.com/mattn/go-sqlite3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "till"
)

const options = "?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=5000&_txlock=immediate&_cache_size=-4096"

type unit func(*sql.Tx) error

type server struct {
	pb.UnimplementedOrderServiceServer
	reads *sql.Stmt
	write func(unit) error
}

func main() {
	listen := flag.String("listen", "", "host:port")
	file := flag.String("database", "", "the SQLite file")
	group := flag.Bool("group", false, "commit many calls together")
	flag.Parse()
	writer, reader := open(*file), open(*file)
	writer.SetMaxOpenConns(1) // SQLite has one writer; waiting here is cheaper than SQLITE_BUSY
	reads, err := reader.Prepare(`SELECT order_number, grand_total, created_ms FROM orders
		WHERE store_id = ? AND user_id = ? ORDER BY created_ms DESC LIMIT 5`)
	check(err)
	s := &server{reads: reads, write: func(work unit) error { return alone(writer, work) }}
	if *group {
		s.write = grouped(writer)
	}
	listener, err := net.Listen("tcp", *listen)
	check(err)
	grpcServer := grpc.NewServer()
	pb.RegisterOrderServiceServer(grpcServer, s)
	check(grpcServer.Serve(listener))
}

func open(file string) *sql.DB {
	database, err := sql.Open("sqlite3", "file:"+file+options)
	check(err)
	return database
}

func (s *server) SubmitStoreOrder(ctx context.Context, in *pb.SubmitStoreOrderRequest) (*pb.SubmitStoreOrderResponse, error) {
	if in.StoreId == "" || in.OrderId == "" || in.UserId == "" || in.Total == nil || in.GetGrandTotal() < 0 {
		return nil, status.Error(codes.InvalidArgument, "a field is missing")
	}
	key, answer, replayed := "", fmt.Sprintf("Order %s submitted successfully", in.OrderId), false
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get("idempotency-key")) > 0 {
		key = md.Get("idempotency-key")[0]
	}
	err := s.write(func(tx *sql.Tx) (err error) {
		replayed, err = submit(tx, in, key, answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	if replayed {
		grpc.SetHeader(ctx, metadata.Pairs("idempotent-replayed", "true"))
	}
	return &pb.SubmitStoreOrderResponse{StatusCode: 201, Body: &pb.SimpleOrderMessage{Message: answer}}, nil
}

func submit(tx *sql.Tx, in *pb.SubmitStoreOrderRequest, key, answer string) (replayed bool, err error) {
	sum := sha256.Sum256([]byte(fmt.Sprintf("%q%q%q%g", in.StoreId, in.OrderId, in.UserId, in.GetGrandTotal())))
	meaning, seen, now := hex.EncodeToString(sum[:]), "", time.Now().UnixNano()/1e6
	err = tx.QueryRow("SELECT fingerprint FROM idempotency_keys WHERE key = ?", key).Scan(&seen)
	if err == nil && seen == meaning {
		return true, nil
	} else if err == nil {
		return false, status.Error(codes.Aborted, "the key was used for another request")
	} else if err != sql.ErrNoRows {
		return false, err
	}
	_, err = tx.Exec("INSERT INTO orders (store_id, order_number, user_id, grand_total, created_ms) VALUES (?, ?, ?, ?, ?)",
		in.StoreId, in.OrderId, in.UserId, int64(math.Round(in.GetGrandTotal()*1e6)), now)
	if err != nil {
		return false, status.Error(codes.FailedPrecondition, err.Error())
	}
	_, err = tx.Exec("INSERT INTO idempotency_keys (key, fingerprint, answer, created_ms) VALUES (?, ?, ?, ?)",
		key, meaning, answer, now)
	return false, err
}

func (s *server) ListRecentUserOrders(ctx context.Context, in *pb.ListRecentUserOrdersRequest) (*pb.ListRecentUserOrdersResponse, error) {
	rows, err := s.reads.QueryContext(ctx, in.StoreId, in.UserId)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := &pb.ListRecentUserOrdersResponse{StatusCode: 200, Body: &pb.SimpleOrderMessage{Message: "Orders retrieved successfully"}}
	for rows.Next() {
		order, micros, at := &pb.UserOrder{UserId: in.UserId, StoreId: in.StoreId}, int64(0), int64(0)
		if err := rows.Scan(&order.OrderId, &micros, &at); err != nil {
			return nil, err
		}
		order.GrandTotal, order.Timestamp = float64(micros)/1e6, fmt.Sprintf("%s#%d", in.UserId, at)
		out.Orders = append(out.Orders, order)
	}
	return out, rows.Err()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
