%struct.Value = type { i32, %union.anon }
%union.anon = type { %struct.anon }
%struct.anon = type { ptr, i64 }
define i64 @skip(ptr %0, i64 %1, i32 %2) {
  %4 = alloca i64
  %5 = alloca ptr
  %6 = alloca i64
  %7 = alloca i32
  %8 = alloca %struct.Value
  %9 = alloca i64
  %10 = alloca i32
  %11 = alloca i64
  %12 = alloca i64
  store ptr %0, ptr %5
  store i64 %1, ptr %6
  store i32 %2, ptr %7
  call void @llvm.lifetime.start.p0(ptr %8)
  call void @llvm.lifetime.start.p0(ptr %9)
  %13 = load ptr, ptr %5
  %14 = load i64, ptr %6
  %15 = call i64 @read_value(ptr %13, i64 %14, ptr %8)
  store i64 %15, ptr %9
  %16 = load i64, ptr %9
  %17 = icmp eq i64 %16, 0
  br i1 %17, label %21, label %18
18:
  %19 = load i32, ptr %7
  %20 = icmp eq i32 %19, 0
  br i1 %20, label %21, label %22
21:
  store i64 0, ptr %4
  store i32 1, ptr %10
  br label %73
22:
  %23 = getelementptr inbounds nuw %struct.Value, ptr %8, i32 0, i32 0
  %24 = load i32, ptr %23
  %25 = icmp ne i32 %24, 5
  br i1 %25, label %26, label %32
26:
  %27 = getelementptr inbounds nuw %struct.Value, ptr %8, i32 0, i32 0
  %28 = load i32, ptr %27
  %29 = icmp ne i32 %28, 6
  br i1 %29, label %30, label %32
30:
  %31 = load i64, ptr %9
  store i64 %31, ptr %4
  store i32 1, ptr %10
  br label %73
32:
  call void @llvm.lifetime.start.p0(ptr %11)
  %33 = getelementptr inbounds nuw %struct.Value, ptr %8, i32 0, i32 1
  %34 = load i64, ptr %33
  %35 = getelementptr inbounds nuw %struct.Value, ptr %8, i32 0, i32 0
  %36 = load i32, ptr %35
  %37 = icmp eq i32 %36, 6
  %38 = zext i1 %37 to i64
  %39 = select i1 %37, i32 2, i32 1
  %40 = sext i32 %39 to i64
  %41 = mul i64 %34, %40
  store i64 %41, ptr %11
  br label %42
42:
  %43 = load i64, ptr %11
  %44 = icmp ne i64 %43, 0
  br i1 %44, label %46, label %45
45:
  store i32 2, ptr %10
  br label %69
46:
  call void @llvm.lifetime.start.p0(ptr %12)
  %47 = load ptr, ptr %5
  %48 = load i64, ptr %9
  %49 = getelementptr inbounds nuw i8, ptr %47, i64 %48
  %50 = load i64, ptr %6
  %51 = load i64, ptr %9
  %52 = sub i64 %50, %51
  %53 = load i32, ptr %7
  %54 = sub i32 %53, 1
  %55 = call i64 @skip(ptr %49, i64 %52, i32 %54)
  store i64 %55, ptr %12
  %56 = load i64, ptr %12
  %57 = icmp eq i64 %56, 0
  br i1 %57, label %58, label %59
58:
  store i64 0, ptr %4
  store i32 1, ptr %10
  br label %63
59:
  %60 = load i64, ptr %12
  %61 = load i64, ptr %9
  %62 = add i64 %61, %60
  store i64 %62, ptr %9
  store i32 0, ptr %10
  br label %63
63:
  call void @llvm.lifetime.end.p0(ptr %12)
  %64 = load i32, ptr %10
  switch i32 %64, label %69 [
    i32 0, label %65
  ]
65:
  br label %66
66:
  %67 = load i64, ptr %11
  %68 = add i64 %67, -1
  store i64 %68, ptr %11
  br label %42
69:
  call void @llvm.lifetime.end.p0(ptr %11)
  %70 = load i32, ptr %10
  switch i32 %70, label %73 [
    i32 2, label %71
  ]
71:
  %72 = load i64, ptr %9
  store i64 %72, ptr %4
  store i32 1, ptr %10
  br label %73
73:
  call void @llvm.lifetime.end.p0(ptr %9)
  call void @llvm.lifetime.end.p0(ptr %8)
  %74 = load i64, ptr %4
  ret i64 %74
}
